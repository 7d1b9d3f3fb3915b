"""A person orders: a held case does not run, a forced one runs with what there is, and both are audited."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

import pytest
import yaml
from click.testing import CliRunner
from pydicom import dcmread
from sqlalchemy import select

from dicom_node.cli import main
from dicom_node.ledger import cases, orders, runs
from dicom_node.ledger.orders import Order, OrderKind
from dicom_node.ledger.tables import CaseState, audit
from tests.factories.bench import NOW, Bench
from tests.factories.flair import DAYS

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

TASK = "glioma-recurrence"


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    """A node that has received nothing yet."""
    found = Bench(tmp_path / "data")
    yield found
    found.database.close()


def receive(bench: Bench, studies: list[Path], which: slice) -> None:
    """Let some studies arrive and fall quiet."""
    wanted = {str(number) for number in range(len(DAYS))[which]}
    for path in studies:
        if path.parent.name in wanted:
            bench.receive(path)
    bench.tick()
    bench.now += timedelta(minutes=5)
    bench.tick()


def order(bench: Bench, kind: OrderKind, reason: str = "") -> None:
    """Give an order."""
    with bench.database.write() as ledger:
        orders.give(ledger, 1, TASK, Order(kind=kind, given_at=NOW, actor="admin", reason=reason))


def case(bench: Bench) -> cases.Case:
    """Return the only case."""
    with bench.database.read() as ledger:
        (found,) = cases.of_patient(ledger, 1)
    return found


def test_a_held_case_does_not_run_until_it_is_released(bench: Bench, studies: list[Path]) -> None:
    """The hold stands with its reason, whatever arrives."""
    receive(bench, studies, slice(2))
    order(bench, OrderKind.HOLD, "wrong arm of the trial")
    receive(bench, studies, slice(2, 4))
    assert case(bench).state is CaseState.HELD
    assert case(bench).reasons[0].text == "held by hand since 2026-03-01: wrong arm of the trial"
    with bench.database.write() as ledger:
        assert orders.withdraw(ledger, 1, TASK, OrderKind.HOLD)
    bench.tick()
    bench.tick()
    assert case(bench).state is CaseState.REPORTED


def test_a_forced_run_uses_two_time_points_once_and_says_so(bench: Bench, studies: list[Path]) -> None:
    """The order is spent by its run; a third time point then makes a run of its own."""
    receive(bench, studies, slice(2))
    assert case(bench).reasons[0].text.startswith("2 of 3 follow-ups")
    order(bench, OrderKind.FORCE)
    bench.tick()
    bench.tick()
    assert case(bench).state is CaseState.REPORTED
    with bench.database.read() as ledger:
        (made,) = runs.of_patient(ledger, 1)
        objects = runs.objects_of(ledger, made.run_key)
        assert orders.of_case(ledger, 1, TASK) == {}
    assert any("started by hand" in remark for remark in made.remarks)
    assert made.requested_by == "admin"
    (report,) = [each for each in objects if each.kind == "report"]
    assert "admin" in str(dcmread(bench.folders.outbox / report.path))  # the person observer
    receive(bench, studies, slice(2, 4))
    bench.tick()
    with bench.database.read() as ledger:
        assert [each.version for each in runs.of_patient(ledger, 1)] == [1, 2]


def test_a_hold_outranks_a_forced_run(bench: Bench, studies: list[Path]) -> None:
    """Whoever holds a case wants it held."""
    receive(bench, studies, slice(2))
    order(bench, OrderKind.HOLD)
    order(bench, OrderKind.FORCE)
    bench.tick()
    assert case(bench).state is CaseState.HELD


def test_orders_by_the_command_line_are_audited(bench: Bench, studies: list[Path], tmp_path: Path) -> None:
    """Who, what, whom and why."""
    receive(bench, studies, slice(2))
    config = tmp_path / "node.yaml"
    sections = {
        "node": {"ae_title": "NODE", "data_dir": "data"},
        "receive": {"allow_unknown_peers": True},
        "tasks": [TASK],
    }
    config.write_text(yaml.safe_dump(sections), encoding="utf-8")
    for arguments in (("hold", "--reason", "asked by neurosurgery"), ("release",), ("force-run",)):
        done = CliRunner().invoke(main, [arguments[0], "PHANTOM-1", *arguments[1:], "--config", str(config)])
        assert done.exit_code == 0, done.output
    again = CliRunner().invoke(main, ["hold", "PHANTOM-1", "--task", "other", "--config", str(config)])
    assert again.exit_code == 1
    assert "this patient has cases of: glioma-recurrence" in again.output
    with bench.database.read() as ledger:
        rows = ledger.execute(select(audit.c.action, audit.c.subject, audit.c.details).order_by(audit.c.id)).all()
    assert [row.action for row in rows] == ["hold", "release", "force"]
    assert {row.subject for row in rows} == {"PHANTOM-1^^^PHANTOM"}
    assert "asked by neurosurgery" in rows[0].details

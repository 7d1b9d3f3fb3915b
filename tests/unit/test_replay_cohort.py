"""Fifty phantom patients, in order and shuffled, end the same: inputs, run and decision of each."""

from __future__ import annotations

import json
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest
from click.testing import CliRunner

from dicom_node.cli import main
from tests.factories.cohort50 import COUNT, write_cohort

if TYPE_CHECKING:
    from pathlib import Path

TASK = "glioma-recurrence"


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The patients' files and the cohort, as real DICOM and CSV."""
    return write_cohort(tmp_path_factory.mktemp("cohort"))


@pytest.fixture(scope="module")
def ordered(written: tuple[Path, Path]) -> dict[str, Any]:
    """What the history as it was acquired ends in."""
    return _replay(written)


def _replay(written: tuple[Path, Path], *options: str) -> dict[str, Any]:
    images, cohort = written
    result = CliRunner().invoke(
        main, ["replay", "--folder", str(images), "--cohort", str(cohort), "--task", TASK, "--json", *options]
    )
    assert result.exit_code == 0, result.output
    found = json.loads(result.output)
    assert found["unread"] == []
    return {each["patient_id"]: each["tasks"][TASK] for each in found["patients"]}


def _reports(task: dict[str, Any]) -> list[dict[str, Any]]:
    return [each for each in task["steps"] if each["state"] == "due"]


def test_the_cohort_meets_every_kind_of_end(ordered: dict[str, Any]) -> None:
    """Fifty patients, reported, held, waiting, ended and not eligible; the test below means something."""
    assert len(ordered) == COUNT
    states = Counter(each["final"]["state"] for each in ordered.values())
    assert set(states) == {"reported", "held", "waiting", "ended", "ineligible"}
    assert states["reported"] >= 10
    assert sum(len(_reports(each)) > 2 for each in ordered.values()) >= 5


def test_a_shuffled_cohort_equals_the_ordered_one(written: tuple[Path, Path], ordered: dict[str, Any]) -> None:
    """Series in two parts, in any order, with pauses that make reports on the way: the same end for each patient."""
    shuffled = _replay(written, "--shuffle", "1")
    for patient_id in sorted(ordered):
        plain, mixed = ordered[patient_id], shuffled[patient_id]
        end, days = plain["final"], [each["acquired_on"] for each in plain["final"]["inputs"]]
        print(  # noqa: T201 - the table that the test is about; pytest shows it on demand
            f"{patient_id}  {end['state']:<10}  {(end['run_key'] or '-')[:12]:<12}  "
            f"reports {len(_reports(plain))} / {len(_reports(mixed))}  inputs {' '.join(days) or '-'}"
        )
    assert {key: each["final"] for key, each in shuffled.items()} == {
        key: each["final"] for key, each in ordered.items()
    }
    assert any(_reports(shuffled[key]) != _reports(ordered[key]) for key in ordered)


def test_every_report_names_the_one_before(ordered: dict[str, Any]) -> None:
    """A chain without a gap: versions count from 1, each predecessor is the report before."""
    for task in ordered.values():
        reports = _reports(task)
        assert [each["version"] for each in reports] == list(range(1, len(reports) + 1))
        keys = [each["run_key"] for each in reports]
        assert [each["predecessor"] for each in reports] == [None, *keys][: len(keys)]

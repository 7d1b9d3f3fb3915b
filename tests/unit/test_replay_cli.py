"""`dicom-node replay`: what the ledger remembers and what a folder holds, told and left as it was."""

from __future__ import annotations

import json
import shutil
import sqlite3
from contextlib import closing
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from click.testing import CliRunner

from dicom_node.cli import main
from dicom_node.ledger import runs
from dicom_node.timeline.model import RunState
from tests.factories.bench import NOW, Bench
from tests.factories.flair import flair_studies

if TYPE_CHECKING:
    from pathlib import Path

    from click.testing import Result

TASK = "glioma-recurrence"
COHORT = "patient_id,issuer,diagnosis,surgeries\nPHANTOM-1,PHANTOM,glioma,2025-03-03\n"


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Four small FLAIR studies, a file per slice."""
    return flair_studies(tmp_path_factory.mktemp("studies"))


@pytest.fixture(scope="module")
def folder(files: list[Path]) -> Path:
    """The folder that holds them, with something beside them that is no image."""
    root = files[0].parents[1]
    (root / "README.txt").write_text("no image", encoding="utf-8")
    return root


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The patient's diagnosis and surgery."""
    path = tmp_path_factory.mktemp("cohort") / "cohort.csv"
    path.write_text(COHORT, encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def node(files: list[Path], tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[runs.Run]]:
    """A node that received three studies, reported, and got the fourth an hour later: its configuration, its runs."""
    data = tmp_path_factory.mktemp("node")
    bench = Bench(data)
    third = len(files) * 3 // 4
    for number, path in enumerate(files):
        bench.now = NOW + (timedelta(hours=1) if number >= third else timedelta())
        bench.receive(path)
        if number in {third - 1, len(files) - 1}:
            bench.now += timedelta(minutes=2)
            bench.tick()
    with bench.database.read() as ledger:
        made = runs.of_patient(ledger, 1)
    bench.database.close()
    config = data / "node.yaml"
    content = {
        "node": {"ae_title": "NODE", "data_dir": str(data)},
        "receive": {"allow_unknown_peers": True, "quiet_period_s": 60},
        "tasks": [TASK],
    }
    config.write_text(yaml.safe_dump(content), encoding="utf-8")
    return config, made


def replay(*arguments: object) -> Result:
    """Run the verb."""
    return CliRunner().invoke(main, ["replay", *(str(each) for each in arguments)])


def told(*arguments: object) -> dict[str, Any]:
    """Run the verb and return the only patient's only task."""
    result = replay(*arguments, "--json")
    assert result.exit_code == 0, result.output
    (patient,) = json.loads(result.stdout)["patients"]
    found: dict[str, Any] = patient["tasks"][TASK]
    return found


def rows(data: Path) -> list[str]:
    """Return everything the ledger holds, as SQL."""
    with closing(sqlite3.connect(data / "ledger.sqlite")) as connection:
        return list(connection.iterdump())


def test_the_ledgers_history_gives_the_runs_that_the_node_made(node: tuple[Path, list[runs.Run]]) -> None:
    """Same keys, same order, same predecessor: the replay decides as the node did."""
    config, made = node
    assert [run.state for run in made] == [RunState.REPORTED, RunState.REPORTED]
    reports = [step for step in told("PHANTOM-1", "--config", config)["steps"] if step["state"] == "due"]
    assert [each["run_key"] for each in reports] == [run.run_key for run in made]
    assert [each["predecessor"] for each in reports] == [run.predecessor for run in made]
    assert [each["version"] for each in reports] == [run.version for run in made]


def test_a_shuffled_ledger_ends_as_the_node_did(node: tuple[Path, list[runs.Run]]) -> None:
    """Whatever is reported on the way."""
    config, made = node
    final = told("PHANTOM-1^^^PHANTOM", "--config", config, "--shuffle", 7)["final"]
    assert (final["state"], final["run_key"]) == ("reported", made[-1].run_key)


def test_what_the_cohort_learned_later_counts_from_then_on(node: tuple[Path, list[runs.Run]], tmp_path: Path) -> None:
    """A recurrence entered after the reports: they stand, and surveillance is over."""
    config = tmp_path / "node" / "node.yaml"
    shutil.copytree(node[0].parent, config.parent)
    config.write_text(node[0].read_text(encoding="utf-8").replace(str(node[0].parent), str(config.parent)), "utf-8")
    by_hand = ["cohort", "set", "PHANTOM-1", "--issuer", "PHANTOM", "--event", "2026-02-25", "--config", str(config)]
    entered = CliRunner().invoke(main, by_hand)
    assert entered.exit_code == 0, entered.output
    found = told("PHANTOM-1", "--config", config)
    assert sum(step["state"] == "due" for step in found["steps"]) == len(node[1])
    assert [step["occasion"] for step in found["steps"][-2:]] == ["cohort", "end"]
    assert found["final"]["state"] == "ended"


def test_a_replay_of_the_ledger_changes_no_row_and_makes_no_file(node: tuple[Path, list[runs.Run]]) -> None:
    """Dry: no run, no case, no job, no audit."""
    config, _ = node
    data = config.parent
    before, names = rows(data), {path for path in data.rglob("*") if path.is_file()}
    assert replay("PHANTOM-1", "--config", config).exit_code == 0
    assert replay("PHANTOM-1", "--config", config, "--shuffle", 1).exit_code == 0
    assert rows(data) == before
    left = {path for path in data.rglob("*") if path.is_file()}
    assert {path for path in left - names if not path.name.startswith("ledger.sqlite-")} == set()


def test_a_folder_gives_the_same_run_as_the_node(folder: Path, cohort: Path, node: tuple[Path, list[runs.Run]]) -> None:
    """Files from disk and files that were received are the same inputs."""
    found = told("--folder", folder, "--cohort", cohort, "--task", TASK)
    assert found["final"]["run_key"] == node[1][-1].run_key
    assert [step["occasion"] for step in found["steps"]] == [*["arrival", "check"] * 4, "end"]
    assert [each["acquired_on"] for each in found["final"]["inputs"]] == [
        "2025-06-02", "2025-09-08", "2025-12-01", "2026-02-20",
    ]  # fmt: skip


def test_a_folder_is_read_and_nothing_is_written(
    folder: Path, cohort: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither beside the files nor where the command runs."""
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    monkeypatch.chdir(tmp_path)
    assert replay("--folder", folder, "--cohort", cohort).exit_code == 0
    assert list(tmp_path.iterdir()) == []
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before


def test_the_table_tells_each_decision_and_the_end(folder: Path, cohort: Path) -> None:
    """Date, state and reason of each, what was not used, and the inputs."""
    result = replay("--folder", folder, "--cohort", cohort)
    assert result.exit_code == 0
    assert "PHANTOM-1^^^PHANTOM" in result.stdout
    assert "2025-06-02 10:15:00" in result.stdout
    assert "final: reported, run " in result.stdout
    assert "2026-02-20 (FLAIR)" in result.stdout
    assert "1 files not used: not-dicom" in result.stdout


def test_without_a_cohort_nobody_is_eligible(folder: Path) -> None:
    """What is not known does not make eligible; it is said, and it is no failure."""
    final = told("--folder", folder)["final"]
    assert final["state"] == "ineligible"
    assert final["inputs"] == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "give either PATIENT, or --folder"),
        (("PHANTOM-1", "--folder", "."), "give either PATIENT, or --folder"),
        (("PHANTOM-1", "--cohort", "{cohort}"), "give either PATIENT, or --folder"),
        (("--folder", "{folder}", "--task", "nonsense"), "'nonsense' is not configured; configured: "),
    ],
)
def test_wrong_usage_ends_with_2(arguments: tuple[str, ...], message: str, folder: Path, cohort: Path) -> None:
    """With what was expected."""
    result = replay(*(each.format(folder=folder, cohort=cohort) for each in arguments))
    assert result.exit_code == 2
    assert message in result.output


def test_an_unknown_patient_ends_with_1(node: tuple[Path, list[runs.Run]]) -> None:
    """And names nobody."""
    result = replay("NOBODY", "--config", node[0])
    assert result.exit_code == 1
    assert "no such patient here" in result.output


def test_a_folder_without_images_ends_with_1(tmp_path: Path) -> None:
    """With what it holds instead."""
    (tmp_path / "notes.txt").write_text("nothing", encoding="utf-8")
    result = replay("--folder", tmp_path)
    assert result.exit_code == 1
    assert "no MR images; 1 files: not-dicom" in result.output

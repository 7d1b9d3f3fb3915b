"""The command line: exit codes, messages, and what an admin sees."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import yaml
from click.testing import CliRunner

from dicom_node.cli import main
from dicom_node.ledger.database import Database
from dicom_node.ledger.tables import audit
from tests.factories.mr import classic_series, write

if TYPE_CHECKING:
    from click.testing import Result

ROOT = Path(__file__).parents[2]


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """A configuration with its data under the test's folder."""
    content = {
        "node": {"ae_title": "NODE", "port": 1, "data_dir": "data"},
        "receive": {"peers": [{"ae_title": "S", "hosts": ["127.0.0.1"], "default_issuer": "HOSPITAL"}]},
        "tasks": ["glioma-recurrence"],
    }
    path = tmp_path / "node.yaml"
    path.write_text(yaml.safe_dump(content), encoding="utf-8")
    return path


def run(*arguments: object) -> Result:
    """Run a verb."""
    return CliRunner().invoke(main, [str(each) for each in arguments])


def test_every_verb_of_the_help_is_in_the_readme() -> None:
    """A verb that nobody can find does not exist."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    for verb in main.commands:
        assert f"dicom-node {verb}" in readme, verb


def test_check_says_good_for_the_example() -> None:
    """config/node.yaml passes, with its task and bundle."""
    result = run("check", "--config", ROOT / "config" / "node.yaml")
    assert result.exit_code == 0
    assert "good; tasks: glioma-recurrence" in result.output


def test_check_ends_with_2_and_every_problem(config: Path) -> None:
    """File, key, value and rule, one line each."""
    config.write_text(config.read_text(encoding="utf-8") + "mode: dead\nnonsense: 1\n", encoding="utf-8")
    result = run("check", "--config", config)
    assert result.exit_code == 2
    assert "mode = 'dead'" in result.output
    assert "nonsense = 1: unknown key" in result.output


def test_check_names_an_unknown_task_with_those_that_exist(config: Path) -> None:
    """The shipped names stand in the message."""
    config.write_text(config.read_text(encoding="utf-8").replace("glioma-recurrence", "gliom"), encoding="utf-8")
    result = run("check", "--config", config)
    assert result.exit_code == 2
    assert "'gliom': no such file; shipped tasks: glioma-recurrence" in result.output


def test_check_refuses_a_bundle_that_is_not_the_pinned_one(config: Path, tmp_path: Path) -> None:
    """Expected and found digest stand in the message."""
    task = yaml.safe_load((ROOT / "config" / "tasks" / "glioma_recurrence.yaml").read_text(encoding="utf-8"))
    task["bundle"]["digest"] = "sha256:" + "0" * 64
    (tmp_path / "task.yaml").write_text(yaml.safe_dump(task), encoding="utf-8")
    config.write_text(config.read_text(encoding="utf-8").replace("glioma-recurrence", "task.yaml"), encoding="utf-8")
    result = run("check", "--config", config)
    assert result.exit_code == 2
    assert "expected sha256:0000" in result.output


def test_a_cohort_is_imported_listed_set_and_audited(config: Path, tmp_path: Path) -> None:
    """Dates come back as given; every change has its line in the audit."""
    file = tmp_path / "cohort.csv"
    file.write_text("patient_id,diagnosis,surgeries,events\n1,glioma,2025-01-02;2025-06-07,\n2,,,2026-01-01:death\n")
    result = run("cohort", "import", file, "--config", config)
    assert result.output == "2 patients read, 2 changed\n"
    assert run("cohort", "import", file, "--config", config).output == "2 patients read, 0 changed\n"
    assert run("cohort", "set", "2", "--surgery", "2025-03-03", "--config", config).exit_code == 0
    listed = json.loads(run("cohort", "list", "--json", "--config", config).output)
    assert [each["on"] for each in listed[0]["surgeries"]] == ["2025-01-02", "2025-06-07"]
    assert listed[1]["surgeries"][0]["on"] == "2025-03-03"
    assert listed[1]["events"] == [{"kind": "death", "on": "2026-01-01"}]
    database = Database(f"sqlite:///{config.parent / 'data' / 'ledger.sqlite'}")
    with database.read() as ledger:
        actions = [row.action for row in ledger.execute(audit.select())]
    database.close()
    assert actions == ["cohort import", "cohort import", "cohort set"]


def test_a_wrong_cohort_line_is_named_and_nothing_is_taken(config: Path, tmp_path: Path) -> None:
    """All wrong lines at once, by number, and never with a value that could name a patient."""
    file = tmp_path / "cohort.csv"
    file.write_text("patient_id,surgeries\nSECRET-1,2025-01-02\nSECRET-2,soon\n,2025-01-01\nSECRET-1,\n")
    result = run("cohort", "import", file, "--config", config)
    assert result.exit_code == 2
    assert "line 3: surgeries: expected a date like 2025-03-14" in result.output
    assert "line 4: patient_id: empty" in result.output
    assert "line 5: patient_id: stands in line 2 already" in result.output
    assert "SECRET" not in result.output
    assert not (config.parent / "data").exists()


def test_status_before_the_first_start_says_so(config: Path) -> None:
    """No ledger is an answer, not a traceback."""
    result = run("status", "--config", config)
    assert result.exit_code == 1
    assert "no ledger here yet" in result.output


def test_ingested_files_wait_to_be_read_and_others_are_refused(config: Path, tmp_path: Path) -> None:
    """What is no DICOM file is named; the rest is taken as if received."""
    write(classic_series(np.zeros((10, 8, 8), dtype=np.uint16), np.eye(4)), tmp_path / "files")
    (tmp_path / "files" / "note.txt").write_text("no DICOM")
    result = run("ingest", tmp_path / "files", "--config", config)
    assert "10 files taken, 1 refused" in result.output
    assert json.loads(run("status", "--json", "--config", config).output)["files"] == {"received": 10}


def test_an_unknown_patient_or_run_ends_with_1(config: Path, tmp_path: Path) -> None:
    """With a sentence, not a traceback."""
    file = tmp_path / "cohort.csv"
    file.write_text("patient_id\n1\n")
    run("cohort", "import", file, "--config", config)
    assert run("timeline", "nobody", "--config", config).exit_code == 1
    assert "no study 1.2.3 here" in run("explain", "1.2.3", "--config", config).output
    assert "found 0" in run("retry", "abc", "--config", config).output


def test_doctor_names_what_is_bad(config: Path) -> None:
    """Nothing listens on port 1, so the doctor's verdict is bad, line by line."""
    result = run("doctor", "--config", config)
    assert result.exit_code == 1
    assert "BAD our own listener" in result.output
    assert "ok  task glioma-recurrence" in result.output


def test_every_test_that_the_readme_names_exists() -> None:
    """A proof that cannot be run is none."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    for name in re.findall(r"`(?:tests/\w+/)?(test_[\w*]+\.py)`", readme):
        assert list((ROOT / "tests").glob(f"*/{name}")), name

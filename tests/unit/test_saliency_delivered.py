"""Maps that were not found to show what changed are not delivered unless a task wants them; the report says which."""

from __future__ import annotations

import json
import shutil
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Literal

import pytest
import yaml
from click.testing import CliRunner
from pydicom import dcmread

from dicom_node.cli import main
from dicom_node.demo import task_with_maps
from dicom_node.ledger import runs
from dicom_node.observe.doctor import examine
from dicom_node.resources import task_file
from dicom_node.settings import load
from dicom_node.timeline.task import SaliencyRule, load_task
from dicom_node.work import saliency
from dicom_node.work.tasks import load_tasks
from inference.bundle_files import METADATA, shipped
from inference.bundle_parts import SaliencyEvidence, SaliencyMethod
from inference.results import QualityFlag, Result
from sr_templates import wording
from sr_templates.read_report import read_report
from sr_templates.template import load_template
from tests.factories.bench import Bench
from tests.factories.flair import flair_studies

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

Deliver = Literal["auto", "always", "never"]
PASSED, FAILED = (
    SaliencyEvidence(method=SaliencyMethod.DIFFERENCE, delivered_by_default=good, evidence="40 synthetic phantoms: 0.2")
    for good in (True, False)
)
NO_MAP = "no saliency map is given: "
FAILURE = "the model's maps did not pass the check that they show what changed"
NO_CHECK = "nobody has checked whether the model's maps show what changed"


@pytest.mark.parametrize(
    ("deliver", "evidence", "delivered", "said"),
    [
        ("auto", PASSED, True, None),
        ("auto", FAILED, False, NO_MAP + FAILURE),
        ("auto", None, False, NO_MAP + NO_CHECK),
        ("always", PASSED, True, None),
        ("always", FAILED, True, f"a saliency map is given because the task asks for it: {FAILURE}"),
        ("always", None, True, f"a saliency map is given because the task asks for it: {NO_CHECK}"),
        ("never", PASSED, False, NO_MAP + "the task asks for none"),
        ("never", None, False, NO_MAP + "the task asks for none"),
    ],
)
def test_the_task_decides_else_the_bundle(
    deliver: Deliver, evidence: SaliencyEvidence | None, delivered: bool, said: str | None
) -> None:
    """A bundle whose maps nobody checked delivers none by itself; only a map that passed goes without a word."""
    rule = SaliencyRule(deliver=deliver)
    assert saliency.is_delivered(rule, evidence) is delivered
    found = saliency.remark(rule, evidence)
    assert (found and found.message) == said
    assert found is None or found.code == (saliency.UNPROVEN if delivered else saliency.WITHHELD)


@pytest.mark.parametrize("code", [saliency.WITHHELD, saliency.UNPROVEN])
def test_a_report_in_german_has_words_of_its_own(code: str) -> None:
    """In English the sentence stands as it is."""
    flag = QualityFlag(code=code, message="why")
    assert wording.caution(flag, load_template("glioma_recurrence")) == "Caution: why"
    german = wording.caution(flag, load_template("glioma_recurrence.de"))
    assert german.startswith("Vorsicht: ")
    assert "alienzkarte" in german
    assert german.endswith("(why)")


@pytest.fixture
def reporting(tmp_path: Path) -> Iterator[Callable[[SaliencyEvidence | None], Bench]]:
    """Return what makes a node that reported with a bundle of which this was found."""
    made: list[Bench] = []

    def make(evidence: SaliencyEvidence | None) -> Bench:
        bench = Bench(tmp_path / "node", saliency=evidence)
        made.append(bench)
        bench.import_cohort()
        bench.receive(*flair_studies(tmp_path / "studies"))
        bench.now += timedelta(minutes=5)
        for _ in range(3):
            bench.tick()
        return bench

    yield make
    for each in made:
        each.database.close()


@pytest.mark.parametrize(("evidence", "n_maps"), [(PASSED, 1), (FAILED, 0), (None, 0)])
def test_a_run_without_a_map_is_reported_and_says_why(
    reporting: Callable[[SaliencyEvidence | None], Bench], evidence: SaliencyEvidence | None, n_maps: int
) -> None:
    """SR and summary page are there as ever; asked to infer again, the step finds its answer whole."""
    bench = reporting(evidence)
    with bench.database.read() as ledger:
        (run,) = runs.of_patient(ledger, 1)
        objects = {each.kind: each for each in runs.objects_of(ledger, run.run_key)}
    assert run.result is not None
    result = Result.from_json(run.result)
    assert len(list(bench.folders.results.glob("*.npz"))) == n_maps
    assert ("saliency" in objects) == bool(n_maps)
    assert {"summary", "report"} <= set(objects)
    assert (result.saliency_method is None) == (n_maps == 0)
    summary = read_report(dcmread(bench.folders.outbox / objects["report"].path)).summary
    said = [line for line in summary if NO_MAP in line]
    assert len(said) == (n_maps == 0)
    assert all(line.endswith(FAILURE if evidence else NO_CHECK) for line in said)
    bench.steps.infer(run.run_key)
    with bench.database.read() as ledger:
        assert runs.get(ledger, run.run_key) == run


def node_of(folder: Path, evidence: SaliencyEvidence | None, **rule: Any) -> Path:
    """Write a node's configuration with a task and what a check reads of its bundle."""
    shutil.copytree(shipped("phantom_recurrence"), folder / "bundle", ignore=shutil.ignore_patterns("docs"))
    content = json.loads((folder / "bundle" / METADATA).read_text())
    content["saliency"] = None if evidence is None else evidence.model_dump(mode="json")
    (folder / "bundle" / METADATA).write_text(json.dumps(content))
    task = yaml.safe_load(task_file("glioma-recurrence").read_text(encoding="utf-8"))
    task |= {"bundle": {"path": "bundle"}, "saliency": rule}
    (folder / "task.yaml").write_text(yaml.safe_dump(task), encoding="utf-8")
    node = {
        "node": {"ae_title": "NODE", "data_dir": "data"},
        "receive": {"allow_unknown_peers": True},
        "tasks": ["task.yaml"],
    }
    (folder / "node.yaml").write_text(yaml.safe_dump(node), encoding="utf-8")
    return folder / "node.yaml"


@pytest.mark.parametrize(
    ("evidence", "rule", "line"),
    [
        (PASSED, {}, "saliency maps delivered (saliency.deliver = auto): difference; 40 synthetic phantoms: 0.2"),
        (None, {}, f"saliency maps not delivered (saliency.deliver = auto): {NO_CHECK}"),
        (
            FAILED,
            {"deliver": "always"},
            "saliency maps delivered (saliency.deliver = always): difference; 40 synthetic",
        ),
    ],
)
def test_check_and_doctor_tell_what_holds(
    tmp_path: Path, evidence: SaliencyEvidence | None, rule: dict[str, str], line: str
) -> None:
    """Before a run does, with what was measured."""
    config = node_of(tmp_path, evidence, **rule)
    checked = CliRunner().invoke(main, ["check", "--config", str(config)])
    assert checked.exit_code == 0, checked.output
    assert f"glioma-recurrence: {line}" in checked.output
    (finding,) = [each for each in examine(load(config)) if each.what == "task glioma-recurrence"]
    assert line in finding.found


def test_the_demo_shows_a_map_whatever_was_found_of_it(tmp_path: Path) -> None:
    """Its own copy of the task, anything else as it was, paths seen from where it lies."""
    node_of(tmp_path / "site", FAILED, deliver="never", parametric_map=True)
    (tmp_path / "out").mkdir()
    (served,) = load_tasks([str(task_with_maps(str(tmp_path / "site" / "task.yaml"), tmp_path / "out"))]).values()
    site = load_task(tmp_path / "site" / "task.yaml")
    assert served.bundle_folder == tmp_path / "site" / "bundle"
    assert served.task.saliency == SaliencyRule(deliver="always", parametric_map=True)
    assert served.task.model_dump(exclude={"saliency", "bundle"}) == site.model_dump(exclude={"saliency", "bundle"})

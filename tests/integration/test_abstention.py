"""A model that does not know says so: a report with a reason and no number, delivered, shown and read back like any."""

from __future__ import annotations

import json
import shutil
import subprocess
from dataclasses import dataclass, field
from datetime import date, timedelta
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from pydicom import dcmread
from pydicom.uid import Comprehensive3DSRStorage, SecondaryCaptureImageStorage

from dicom_node.deliver.consignment import job_key
from dicom_node.deliver.postman import Postman
from dicom_node.ledger import deliveries, runs
from dicom_node.ledger.tables import CaseState
from dicom_node.ledger.tables import run as run_table
from dicom_node.observe import overview
from dicom_node.observe.logs import open_log
from dicom_node.priors.own_reports import read_own_report
from dicom_node.resources import selection_file, task_file
from dicom_node.settings import Logging
from dicom_node.timeline.model import RunState
from dicom_node.timeline.selection import load_selection
from inference.bundle import load
from inference.bundle_parts import Conformal, ConformalGroup, Novelty, Rule
from inference.phantom import StudyOptions, make_patient, write_study
from inference.predictor import Predictor
from inference.results import AbstentionKind, Result
from sr_templates.read_report import read_report
from sr_templates.render_html import to_html
from sr_templates.self_check import faults
from tests.factories.bench import Bench, no_archive
from tests.factories.bundles import tiny_bundle
from tests.factories.flair import ISSUER
from tests.factories.peers import NODE_AE, destination

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from inference.predictor import Prediction, Scan
    from tests.factories.peers import Orthanc

VISITS = 2
NEWEST = date(2026, 2, 20)
STRANGE = Novelty(limit=1e-6, quantile=0.995, n_patients=200, n_scans=1200)
BOTH = Conformal(
    coverage=0.9,
    groups=(ConformalGroup(n_scans=(1, 6), event_from=None, no_event_up_to=None, n_events=8, n_others=8),),
)


@dataclass
class Counting:
    """A real predictor, and how often it was asked."""

    predictor: Predictor
    asked: list[date | None] = field(default_factory=list)

    def predict(
        self, task: str, scans: Sequence[Scan], *, saliency_for: Sequence[int], asked_on: date | None = None
    ) -> Prediction:
        """Count and answer."""
        self.asked.append(asked_on)
        return self.predictor.predict(task, scans, saliency_for=saliency_for, asked_on=asked_on)


@dataclass
class Abstaining:
    """A node whose runs are answered by a real predictor on a bundle of this test."""

    bench: Bench
    model: Counting

    def run(self) -> runs.Run:
        """Return the only run."""
        with self.bench.database.read() as ledger:
            (found,) = runs.of_patient(ledger, 1)
        return found

    def result(self) -> Result:
        """Return what was frozen."""
        return Result.from_json(self.run().result or "")

    def files(self) -> dict[str, Path]:
        """Return the encoded objects by kind."""
        with self.bench.database.read() as ledger:
            objects = runs.objects_of(ledger, self.run().run_key)
        return {each.kind: self.bench.folders.outbox / each.path for each in objects}

    def time_line(self) -> dict[str, Any]:
        """Return what `timeline --json` shows."""
        selection = load_selection(selection_file(None))
        with self.bench.database.read() as ledger:
            (patient,) = overview.patients.all_patients(ledger)
            return overview.time_line(ledger, patient, self.bench.steps.tasks, selection, self.bench.now.date())


@pytest.fixture(scope="module")
def studies(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two coarse FLAIR studies of one phantom."""
    folder = tmp_path_factory.mktemp("phantom")
    patient = make_patient(11, n_visits=VISITS, last_visit=NEWEST)
    options = StudyOptions(roles=("FLAIR",), spacing_mm=(5.0, 2.5, 2.5), truth=False)
    return [path for visit in range(VISITS) for path in write_study(patient, visit, folder / str(visit), options)]


@pytest.fixture
def node_with(tmp_path: Path, studies: list[Path], volume_cache: Path) -> Iterator[Callable[..., Abstaining]]:
    """Return what makes a node that reported on the studies with a bundle that says this of itself."""
    made: list[Bench] = []

    def make(*pacs: dict[str, Any], **trust: Any) -> Abstaining:
        folder = tiny_bundle(tmp_path / "bundle", **trust)
        task = yaml.safe_load(task_file("glioma-recurrence").read_text(encoding="utf-8"))
        task["bundle"] = {"path": str(folder)}
        task["time_points"]["minimum"] = VISITS
        (tmp_path / "task.yaml").write_text(yaml.safe_dump(task), encoding="utf-8")
        model = Counting(Predictor(load(folder), device="cpu", cache=volume_cache))
        bench = Bench(
            tmp_path / "node",
            pacs=pacs,
            task=str(tmp_path / "task.yaml"),
            predictor_for=lambda _served: model,
            cohort_known=False,
        )
        made.append(bench)
        bench.import_cohort(str(dcmread(studies[0], stop_before_pixels=True).PatientID))
        bench.receive(*studies)
        bench.now += timedelta(minutes=5)
        for _ in range(3):
            bench.tick()
        return Abstaining(bench=bench, model=model)

    yield make
    for each in made:
        each.database.close()


@pytest.fixture
def abstaining(node_with: Callable[..., Abstaining]) -> Abstaining:
    """A node to whose model every scan is strange."""
    return node_with(novelty=STRANGE)


def test_a_run_that_abstains_is_reported_without_a_number(abstaining: Abstaining) -> None:
    """Summary page and SR, no saliency; the SR says that the value is indeterminate, why, and on which scans."""
    result = abstaining.result()
    assert result.abstention is not None
    assert result.abstention.kind is AbstentionKind.INDETERMINATE
    assert "scans 1, 2 of 2: unlike the scans of the model's calibration" in result.abstention.reason
    assert min(result.novelty) > 1
    assert sorted(abstaining.files()) == ["report", "report-compr", "report-enhanced", "summary"]
    ds = dcmread(abstaining.files()["report"])
    assert faults(ds) == ()
    report = read_report(ds)
    assert (report.probability, report.qualifier, report.trajectory) == (None, "114011", ())
    assert [each.day for each in report.time_points] == [f"{each:%Y%m%d}" for each in abstaining.run().inputs.dates]
    (told,) = [line for line in report.summary if line.startswith("NO ANSWER")]
    assert "value indeterminate" in told
    assert result.abstention.reason in told
    assert "%" not in to_html(ds)


def test_the_case_is_reported_and_says_that_there_is_no_answer(abstaining: Abstaining) -> None:
    """In `status`, in `timeline`, and for the run itself."""
    found = abstaining.time_line()
    (case,) = found["cases"]
    assert case["state"] == CaseState.REPORTED.value
    assert [each["code"] for each in case["reasons"]] == ["reported", "indeterminate"]
    assert case["reasons"][1]["text"].startswith("indeterminate: scans 1, 2 of 2: unlike")
    (run,) = found["runs"]
    assert run["abstention"]["code"] == "114011"
    json.dumps(found, default=str)


def test_an_answer_of_none_is_an_answer_and_not_asked_for_again(abstaining: Abstaining) -> None:
    """Neither by the next tick nor by a worker that repeats the step before it encodes."""
    for _ in range(3):
        abstaining.bench.tick()
    with abstaining.bench.database.write() as ledger:
        died = run_table.update().values(state=RunState.RUNNING, encoded_at=None)  # between the two steps
        ledger.execute(died)
    abstaining.bench.steps.infer(abstaining.run().run_key)
    assert abstaining.model.asked == [abstaining.bench.now.date()]


def test_a_node_that_lost_its_database_reads_the_abstention_back(abstaining: Abstaining) -> None:
    """So that the same inputs are not reported twice, and the next version counts on."""
    found = read_own_report(abstaining.files()["report"], default_issuer=ISSUER)
    run = abstaining.run()
    assert (found.run_key, found.version, found.task) == (run.run_key, 1, run.task)
    assert found.inputs.dates == run.inputs.dates
    result = Result.from_json(found.result)
    assert result.abstention is not None
    assert result.abstention.kind is AbstentionKind.INDETERMINATE
    assert result.outputs == ()


@pytest.mark.peer
def test_the_archive_holds_the_report_of_an_abstention(node_with: Callable[..., Abstaining], orthanc: Orthanc) -> None:
    """Page and SR are delivered as ever, and the case then says both."""
    node = node_with(destination(orthanc), novelty=STRANGE)
    bench = node.bench
    with bench.database.read() as ledger:
        (due,) = (each.delivery for each in deliveries.due(ledger, bench.now))
    log = open_log(Logging(level="error", format="json"), b"key")
    known = bench.settings.node.model_copy(update={"ae_title": NODE_AE})
    settings = bench.settings.model_copy(update={"node": known})
    postman = Postman(
        settings, bench.database, bench.folders.outbox, log, clock=lambda: bench.now, archive_for=no_archive
    )
    postman.deliver(job_key(due))
    (report,) = orthanc.instances(Comprehensive3DSRStorage)
    assert read_report(report).qualifier == "114011"
    assert len(orthanc.instances(SecondaryCaptureImageStorage)) == 1
    bench.tick()
    (case,) = node.time_line()["cases"]
    assert case["state"] == CaseState.REPORTED.value
    assert [each["code"] for each in case["reasons"]] == ["reported", "indeterminate", "delivery-sent"]


@pytest.mark.peer
@pytest.mark.skipif(not shutil.which("dsrdump"), reason="needs dcmtk")
def test_others_read_the_report_of_an_abstention(abstaining: Abstaining) -> None:
    """DCMTK reads each of the three SOP Classes: a number left empty, with the qualifier of CID 42."""
    for kind, path in abstaining.files().items():
        if kind.startswith("report"):
            dump = subprocess.run(["dsrdump", "+Pl", path], capture_output=True, check=True).stdout.decode()
            assert "Value indeterminate" in dump
            assert "NO ANSWER" in dump


def test_a_doubt_that_forbids_nothing_stands_beside_the_answer(node_with: Callable[..., Abstaining]) -> None:
    """A number, its saliency, and a caution at the scan and at the run."""
    node = node_with(novelty=STRANGE.model_copy(update={"rule": Rule.FLAG}), conformal=BOTH)
    result = node.result()
    assert result.abstention is None
    assert result.outputs[0].possible == (False, True)
    assert {(each.code, each.time_point) for each in result.flags} >= {
        ("out-of-distribution", 0), ("out-of-distribution", 1), ("both-answers-possible", None),
    }  # fmt: skip
    assert "saliency" in node.files()
    summary = read_report(dcmread(node.files()["report"])).summary
    assert "Caution: both answers are possible at 90 % coverage" in summary
    assert any(line.startswith("Caution (scan 1): unlike the scans") for line in summary)


def test_a_bundle_that_wants_one_answer_left_abstains_where_both_are(node_with: Callable[..., Abstaining]) -> None:
    """The set is the reason."""
    node = node_with(conformal=BOTH.model_copy(update={"both": Rule.ABSTAIN}))
    abstention = node.result().abstention
    assert abstention is not None
    assert (abstention.code, abstention.reason) == (
        "both-answers-possible", "both answers are possible at 90 % coverage",
    )  # fmt: skip

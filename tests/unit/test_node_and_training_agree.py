"""One patient, by the node's way and by training's: the same scans, the same volumes to the bit, the same logits."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from datetime import UTC, date, datetime, time
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from dicom_node.receive.facts import read_facts
from dicom_node.timeline.build import build_time_line
from dicom_node.timeline.choose import choose_time_points, selection_rule
from dicom_node.timeline.model import Event, Role
from inference.bundle import Bundle, load, shipped
from inference.phantom import make_patient, render, scan_grid
from inference.predictor import Predictor, Scan
from inference.preprocess import Preprocessed
from inference.training.answers import last_scans_logits
from inference.training.cohort_table import read_table
from inference.training.eligibility import Rule
from inference.training.prepare import Space, array_digest
from inference.training.prepared_cohort import PreparedCohort, prepare_table
from inference.training.reading import encode_cohort
from tests.factories.bundles import write_bundle
from tests.factories.facts import FLAIR, SELECTION, SURGERY, T1, a_cohort, a_task
from tests.factories.mr import classic_series, write

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from dicom_node.timeline.choose import Choice

EVENT, TODAY = date(2025, 12, 1), date(2026, 3, 1)
# Each scan: its day, its role, and the phantom's visit that it shows; those of no visit are never looked into.
SCANS = {
    "before-surgery": (date(2025, 1, 5), "FLAIR", None),
    "early": (date(2025, 1, 12), "FLAIR", None),
    "older": (date(2025, 4, 1), "FLAIR", None),
    "first": (date(2025, 6, 20), "FLAIR", 0),
    "other-role": (date(2025, 8, 1), "T1", None),
    "too-near": (date(2025, 9, 1), "FLAIR", None),
    "second": (date(2025, 9, 8), "FLAIR", 1),
    "after-event": (EVENT, "FLAIR", None),
}
RULE = Rule(role="FLAIR", max_scans=2, min_gap_days=14, max_gap_days=548)
TASK = a_task(
    time_points={"minimum": 2, "maximum": 2}, gates={"min_gap_days": 14, "max_gap_days": 548}, bundle={"digest": None}
)
COHORT = a_cohort(events=(Event(kind="recurrence", on=EVENT),))
GRID = scan_grid(spacing_mm=(5.0, 2.5, 2.5), shape=(32, 90, 78))


@dataclass(frozen=True)
class Served:
    """What the node makes of the patient: its choice, and the scans as the predictor reads them."""

    choice: Choice
    scans: list[Scan]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a folder of DICOM per scan of one patient."""
    root = tmp_path_factory.mktemp("patient")
    patient = make_patient(11, n_visits=2)
    rng = np.random.default_rng(0)
    for name, (day, role, visit) in SCANS.items():
        array, affine = rng.integers(0, 900, (17, 8, 8)), np.diag([30.0, 30.0, 6.5, 1.0])
        if visit is not None:
            array, affine = render(patient, visit, role, grid=GRID)
        write(classic_series(array, affine, name=name, **headers(day, FLAIR if role == "FLAIR" else T1)), root / name)
    return root


def headers(day: date, attributes: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a scanner says of a series of that day."""
    values = {key: list(value) if isinstance(value, tuple) else value for key, value in attributes.items()}
    return {**values, **dict.fromkeys(("StudyDate", "SeriesDate", "AcquisitionDate"), f"{day:%Y%m%d}")}


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """Return the shipped network in a bundle that pins the rule."""
    network = load(shipped("phantom_recurrence")).network
    return load(write_bundle(tmp_path_factory.mktemp("bundle"), network, selection=RULE.selection))


@pytest.fixture(scope="module")
def served(folder: Path) -> Served:
    """Go the node's way: files read, a time line built, time points chosen."""
    facts = {path: read_facts(path, default_issuer="HOSPITAL") for path in sorted(folder.rglob("*.dcm"))}
    line = build_time_line(list(facts.values()), selection=SELECTION, task=TASK, cohort=COHORT)
    choice = choose_time_points(line, TASK, COHORT, TODAY)
    paths = {each.sop_instance_uid: path for path, each in facts.items()}
    scans = [
        Scan(
            acquired=datetime.combine(point.acquired_on, point.acquired_time or time(), tzinfo=UTC),
            series={"FLAIR": tuple(paths[each.sop_instance_uid] for each in point.chosen[Role.FLAIR].instances)},
            digest=point.chosen[Role.FLAIR].series_instance_uid,
        )
        for point in choice.points
    ]
    return Served(choice=choice, scans=scans)


@pytest.fixture(scope="module")
def trained(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> PreparedCohort:
    """Go training's way: a table, scans chosen, and prepared by a process of one thread."""
    with (folder / "table.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["patient", "scan_date", "FLAIR", "T1", "surgery", "event"])
        for name, (day, role, _) in SCANS.items():
            writer.writerow(["P", day, *((name, "") if role == "FLAIR" else ("", name)), SURGERY, EVENT])
    shape = load(shipped("phantom_recurrence")).metadata.input_shape
    table = read_table(folder / "table.csv", today=TODAY)
    out = tmp_path_factory.mktemp("cohort")
    return prepare_table(table, out, rule=RULE, space=Space(role="FLAIR", shape=shape), workers=1)


def test_the_same_scans_are_chosen_for_the_same_reasons(served: Served, trained: PreparedCohort) -> None:
    """The rule is one, and what it reads of a scan (day, kind, roles) comes out the same by both ways."""
    assert selection_rule(TASK) == RULE.selection
    days = {day: name for name, (day, _, _) in SCANS.items()}
    node = {days[each.point.acquired_on]: each.reason.code for each in served.choice.left_out}
    training = {days[date.fromisoformat(each.acquired)]: each.status for each in trained.records}
    assert [days[scan.acquired.date()] for scan in served.scans] == ["first", "second"]
    assert node == {
        "before-surgery": "kind",
        "early": "kind",
        "older": "older",
        "other-role": "missing-role",
        "too-near": "too-near",
        "after-event": "after-event",
    }
    assert training == {
        "before-surgery": "before-surgery",
        "early": "early-post-op",
        "older": "older-than-the-newest",
        "first": "included",
        "other-role": "missing-role",
        "too-near": "too-near",
        "second": "included",
        "after-event": "on-or-after-event",
    }


def test_volumes_are_the_same_to_the_bit_and_logits_to_four_digits(
    served: Served, trained: PreparedCohort, bundle: Bundle, tmp_path: Path
) -> None:
    """On the CPU in float32; the order of the scans counts, so the comparison can tell."""
    predictor = Predictor(bundle, device="cpu", precision="float32", cache=tmp_path)
    prepared = [predictor.prepare(scan) for scan in served.scans]
    recorded = [each.outcome.volume_digest for each in trained.records if each.outcome is not None]
    assert [array_digest(each.preprocessed.array) for each in prepared] == recorded
    assert len(set(recorded)) == 2
    ours, theirs = served_logit(predictor, served.scans), trained_logit(bundle, trained)
    assert ours == pytest.approx(theirs, abs=1e-4)
    backwards = [
        Scan(acquired=at.acquired, series=scan.series, digest=scan.digest)
        for at, scan in zip(served.scans, reversed(served.scans), strict=True)
    ]
    assert served_logit(predictor, backwards) != pytest.approx(theirs, abs=1e-4)
    check_precisions_apart(bundle, served.scans[0], tmp_path)


def served_logit(predictor: Predictor, scans: list[Scan]) -> float:
    """Return the logit behind the node's answer, before calibration."""
    (output, *_) = predictor.predict("test", scans, saliency_for=()).result.outputs
    return float(np.log(output.raw_probability / (1 - output.raw_probability)))


def trained_logit(bundle: Bundle, trained: PreparedCohort) -> float:
    """Return the logit that training and evaluation compute from the patient's two scans."""
    features = encode_cohort(bundle.network, trained.cohort)
    return float(last_scans_logits(bundle.network, trained.cohort, features)[1, 0])


def check_precisions_apart(bundle: Bundle, scan: Scan, cache: Path) -> None:
    """In another precision the volume is recalled, and the features get a name of their own."""
    before = set(cache.glob("*.npz"))
    volumes = {path: Preprocessed.load(path) for path in before if path.stat().st_size > 20_000}
    assert (len(before), len(volumes)) == (4, 2)
    Predictor(bundle, device="cpu", precision="bfloat16", cache=cache).prepare(scan)
    (features,) = set(cache.glob("*.npz")) - before
    assert features.stat().st_size < 20_000

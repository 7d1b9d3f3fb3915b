"""What the predictor passes on besides scans: their days, where a network reads them, and how its maps are made."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch

from inference.bundle import Bundle, BundleError, OutputDefinition, load
from inference.bundle_files import METADATA, read_metadata
from inference.bundle_parts import SaliencyEvidence
from inference.evaluation.saliency_summary import Verdict
from inference.models import build
from inference.phantom import make_patient, render, scan_grid
from inference.predictor import Predictor, Scan
from inference.preprocess import to_native
from inference.saliency import Method, Question, attribute, describe, method_at, methods_told, to_map
from inference.training.examples import Example
from inference.training.reading import read
from inference.volume import read_series
from tests.factories.bundles import write_bundle
from tests.factories.mr import classic_series, write

if TYPE_CHECKING:
    from pathlib import Path

    from inference.results import Result

DAYS = (-400, -250, 0)  # unequal gaps
NEWEST = datetime(2025, 3, 1, 23, 50, tzinfo=UTC)
EVIDENCE = "largest share of mass inside the true change on 40 synthetic phantoms"


@dataclass(frozen=True)
class Patient:
    """A phantom's scans, and where their volumes are kept once prepared."""

    scans: list[Scan]
    cache: Path


@pytest.fixture(scope="module")
def patient(tmp_path_factory: pytest.TempPathFactory) -> Patient:
    """Return three scans; the oldest early in its day and the newest late, which makes no more days of it."""
    phantom, grid = make_patient(11, n_visits=3), scan_grid(spacing_mm=(6.0, 3.0, 3.0), shape=(27, 75, 65))
    scans = []
    for visit, day in enumerate(DAYS):
        array, affine = render(phantom, visit, "FLAIR", grid=grid)
        paths = write(classic_series(array, affine, name=f"visit {visit}"), tmp_path_factory.mktemp(f"visit{visit}"))
        acquired = NEWEST + timedelta(days=day) - timedelta(hours=15 if visit == 0 else 0)
        scans.append(Scan(acquired=acquired, series={"FLAIR": tuple(paths)}, digest=f"{visit:064x}"))
    return Patient(scans=scans, cache=tmp_path_factory.mktemp("cache"))


def bundle_with(folder: Path, *, time_gap: bool, method: Method | None = None) -> Bundle:
    """Return a bundle of two random networks that says how its maps are made."""
    torch.manual_seed(3)
    network = build("small", members=2, width=1, own_encoders=True, time_gap=time_gap)
    saliency = method and SaliencyEvidence(method=method, delivered_by_default=True, evidence=EVIDENCE)
    plain = OutputDefinition(name="recurrence_365d", meaning="recurrence within a year")
    return load(write_bundle(folder, network, outputs=(plain,), selection=None, saliency=saliency))


def trajectory(result: Result) -> list[float]:
    """Return the logits after each scan; these bundles are not calibrated."""
    return [float(np.log(each.probability / (1 - each.probability))) for each in result.trajectory]


def test_a_network_that_reads_days_answers_as_in_training(patient: Patient, tmp_path: Path) -> None:
    """After every scan, with the days of the calendar; hidden from it, they would make another answer."""
    bundle = bundle_with(tmp_path / "bundle", time_gap=True)
    assert bundle.definition.time_gap
    predictor = Predictor(bundle, device="cpu", cache=patient.cache)
    features = torch.from_numpy(np.stack([predictor.prepare(scan).features for scan in patient.scans]))
    trained, blind = (
        [
            float(read(bundle.network, features, [Example(places=tuple(range(n)), days=days and days[:n])]).mean())
            for n in (1, 2, 3)
        ]
        for days in (DAYS, None)
    )
    served = trajectory(predictor.predict("recurrence", patient.scans, saliency_for=()).result)
    assert served == pytest.approx(trained, abs=1e-5)
    assert np.abs(np.subtract(served, blind)).min() > 1e-4


def test_an_explanation_asks_what_was_answered(patient: Patient, tmp_path: Path) -> None:
    """The logit that is traced back to voxels is that of these days."""
    bundle = bundle_with(tmp_path / "bundle", time_gap=True)
    predictor = Predictor(bundle, device="cpu", cache=patient.cache)
    prepared = [predictor.prepare(scan) for scan in patient.scans]
    features = torch.from_numpy(np.stack([each.features for each in prepared]))
    newest = torch.from_numpy(prepared[-1].preprocessed.array)[None, None]
    days = torch.tensor(DAYS, dtype=torch.float32)
    prediction = predictor.predict("recurrence", patient.scans, saliency_for=(-1,))
    with torch.no_grad():
        asked, blind = (
            float(Question(network=bundle.network, features=features, time_point=2, days=each).logits(newest)[0])
            for each in (days, None)
        )
    assert asked == pytest.approx(trajectory(prediction.result)[-1], abs=1e-5)
    assert abs(asked - blind) > 1e-3
    found = attribute(bundle.network, newest[0], features, 2, days=days)
    expected = to_native(
        to_map(found.numpy()), prepared[-1].preprocessed, read_series(patient.scans[-1].series["FLAIR"])
    )
    assert prediction.saliency[0].values == pytest.approx(expected, abs=1e-5)


def test_maps_are_made_as_the_bundle_says_and_told_as_they_were_made(patient: Patient, tmp_path: Path) -> None:
    """The difference to the scan before, but for the oldest, which has none."""
    bundle = bundle_with(tmp_path / "bundle", time_gap=False, method=Method.DIFFERENCE)
    predictor = Predictor(bundle, device="cpu", cache=patient.cache)
    prediction = predictor.predict("recurrence", patient.scans, saliency_for=(0, 2))
    prepared = [predictor.prepare(scan) for scan in patient.scans]
    features = torch.from_numpy(np.stack([each.features for each in prepared]))
    oldest, middle, newest = (torch.from_numpy(each.preprocessed.array)[None] for each in prepared)
    attributions = [
        attribute(bundle.network, oldest, features, 0),
        attribute(bundle.network, newest, features, 2, method=Method.DIFFERENCE, older=middle),
    ]
    for told, found, place in zip(prediction.saliency, attributions, (0, 2), strict=True):
        source = read_series(patient.scans[place].series["FLAIR"])
        expected = to_native(to_map(found.numpy()), prepared[place].preprocessed, source)
        assert expected.max() > 0
        assert told.values == pytest.approx(expected, abs=1e-5)
    plain, difference = describe(Method.INTEGRATED_GRADIENTS), describe(Method.DIFFERENCE)
    assert prediction.result.saliency_method == f"scan 1: {plain}; scan 3: {difference}"
    newest_only = predictor.predict("recurrence", patient.scans[1:], saliency_for=(-1,))
    assert newest_only.result.saliency_method == difference


def test_the_words_name_the_scans_of_each_method() -> None:
    """Only where there are two methods; a bundle that says nothing is explained as ever."""
    told = SaliencyEvidence(method=Method.DIFFERENCE, delivered_by_default=False, evidence=EVIDENCE)
    assert [method_at(None, place) for place in (0, 1)] == [Method.INTEGRATED_GRADIENTS] * 2
    assert [method_at(told, place) for place in (0, 1)] == [Method.INTEGRATED_GRADIENTS, Method.DIFFERENCE]
    assert methods_told([], ()) is None
    three = methods_told([method_at(told, place) for place in range(3)], (2, 3, 4))
    assert three is not None
    assert three.startswith("scan 3: integrated gradients from a flat brain")
    assert "; scans 4, 5: integrated gradients from the scan before" in three


def test_a_check_s_verdict_is_what_a_bundle_holds() -> None:
    """Field by field."""
    verdict = Verdict(method="difference", delivered_by_default=False, evidence=EVIDENCE)
    told = SaliencyEvidence(**asdict(verdict))
    assert told.model_dump(mode="json") == asdict(verdict)


def test_a_bundle_keeps_what_was_found_of_its_saliency(tmp_path: Path) -> None:
    """Of a method that exists, with its evidence; a bundle of before there was a check says nothing of it."""
    bundle_with(tmp_path, time_gap=False, method=Method.OCCLUSION)
    told = read_metadata(tmp_path).saliency
    assert told == SaliencyEvidence(method=Method.OCCLUSION, delivered_by_default=True, evidence=EVIDENCE)
    text = (tmp_path / METADATA).read_text(encoding="utf-8")
    for wrong in (text.replace('"occlusion"', '"guesswork"'), text.replace(EVIDENCE, "")):
        assert wrong != text
        (tmp_path / METADATA).write_text(wrong, encoding="utf-8")
        with pytest.raises(BundleError, match="saliency"):
            read_metadata(tmp_path)
    bundle_with(tmp_path, time_gap=False)
    assert read_metadata(tmp_path).saliency is None

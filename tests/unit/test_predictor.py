"""The one way in: scans of a phantom as DICOM, through preprocessing, network and saliency, cached per time point."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import torch

from inference.bundle import Bundle, TrainingRanges, load
from inference.geometry import GeometryError
from inference.models import build
from inference.phantom import make_patient, render, scan_grid
from inference.predictor import Prediction, Predictor, PredictorError, Scan
from tests.factories.bundles import write_bundle
from tests.factories.mr import classic_series, write

GRID = scan_grid(spacing_mm=(5.0, 2.5, 2.5), shape=(32, 90, 78))
FIRST = datetime(2024, 1, 10, 9, 30, tzinfo=UTC)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """Return a bundle with random weights and two heads."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("bundle")
    ranges = TrainingRanges(gap_days=(30, 400), slice_thickness_mm=(1, 5), n_scans=(1, 3))
    return load(write_bundle(folder, build("small", members=2), training_ranges=ranges, selection=None))


@pytest.fixture(scope="module")
def scans(tmp_path_factory: pytest.TempPathFactory) -> list[Scan]:
    """Return three FLAIR scans of a phantom, 100 days apart."""
    patient = make_patient(11, n_visits=3)
    found = []
    for visit in range(3):
        array, affine = render(patient, visit, "FLAIR", grid=GRID)
        paths = write(classic_series(array, affine, name=f"visit {visit}"), tmp_path_factory.mktemp(f"visit{visit}"))
        found.append(
            Scan(acquired=FIRST + timedelta(days=100 * visit), series={"FLAIR": tuple(paths)}, digest=f"{visit:064x}")
        )
    return found


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the cache folder that the tests of this module share."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def predictor(bundle: Bundle, cache: Path) -> Predictor:
    """Return a predictor on the CPU."""
    return Predictor(bundle, device="cpu", cache=cache)


@pytest.fixture(scope="module")
def prediction(predictor: Predictor, scans: list[Scan]) -> Prediction:
    """Return the answer for all three scans, with the newest and the oldest explained."""
    return predictor.predict("recurrence", scans, saliency_for=(-1, 0))


def test_an_answer_has_a_probability_an_interval_and_a_trajectory(prediction: Prediction) -> None:
    """One output, one risk per prefix, the last of which is the answer."""
    (output,) = prediction.result.outputs
    assert output.name == "recurrence_365d"
    assert output.lower is not None
    assert output.upper is not None
    assert 0 < output.lower < output.probability < output.upper < 1
    trajectory = prediction.result.trajectory
    assert [each.n_scans for each in trajectory] == [1, 2, 3]
    assert [each.acquired for each in trajectory] == [(FIRST + timedelta(days=100 * n)).date() for n in range(3)]
    assert trajectory[-1].probability == output.probability
    assert prediction.result.model.synthetic


def test_each_map_lies_on_its_own_scan_s_slices(prediction: Prediction) -> None:
    """Values in 0..1 on the grid that was scanned, beside its anatomy, naming every slice."""
    assert [each.time_point for each in prediction.saliency] == [0, 2]
    for each in prediction.saliency:
        assert each.values.shape == each.anatomy.shape == GRID.shape
        assert 0 <= each.values.min() < each.values.max() <= 1
        assert len(each.slices) == GRID.shape[0]
    assert len({each.series_instance_uid for each in prediction.saliency}) == 2


def test_thick_slices_are_flagged_with_their_time_point(prediction: Prediction) -> None:
    """Five millimetres are thick; the reader learns where."""
    assert {flag.time_point for flag in prediction.result.flags if flag.code == "thick-slices"} == {0, 1, 2}


def test_a_prefix_answers_as_the_trajectory_said(
    predictor: Predictor, scans: list[Scan], prediction: Prediction
) -> None:
    """The risk after two scans does not depend on the third."""
    shorter = predictor.predict("recurrence", scans[:2], saliency_for=()).result
    assert shorter.outputs[0].probability == prediction.result.trajectory[1].probability
    assert "few-scans" in {flag.code for flag in shorter.flags}


def test_cached_and_fresh_answers_are_the_same_bits(
    bundle: Bundle, scans: list[Scan], prediction: Prediction, predictor: Predictor
) -> None:
    """Without a cache, everything is computed again to the same result."""
    fresh = Predictor(bundle, device="cpu").predict("recurrence", scans[:1], saliency_for=())
    assert fresh.result == predictor.predict("recurrence", scans[:1], saliency_for=()).result


def test_a_torn_cache_entry_is_computed_anew(
    predictor: Predictor, cache: Path, scans: list[Scan], prediction: Prediction
) -> None:
    """Features that cannot be read are as good as none; nothing half-written stays behind."""
    for path in cache.iterdir():
        if path.stat().st_size < 10_000:
            path.write_bytes(path.read_bytes()[:100])
    assert predictor.predict("recurrence", scans, saliency_for=(-1, 0)).result == prediction.result
    assert {path.suffix for path in cache.iterdir()} == {".npz"}


def test_another_bundle_does_not_read_these_features(
    bundle: Bundle, predictor: Predictor, cache: Path, scans: list[Scan], prediction: Prediction
) -> None:
    """Volumes are shared between bundles of one input, features are not."""
    before = set(cache.iterdir())
    Predictor(replace(bundle, digest="sha256:other"), device="cpu", cache=cache).prepare(scans[0])
    (added,) = set(cache.iterdir()) - before
    assert added.stat().st_size < 10_000


def test_more_scans_than_the_model_knows_leave_the_oldest_out(predictor: Predictor, scans: list[Scan]) -> None:
    """The newest three of four are used and keep their places in the time line."""
    older = replace(scans[0], acquired=FIRST - timedelta(days=500))
    result = predictor.predict("recurrence", [older, *scans], saliency_for=()).result
    assert len(result.trajectory) == 3
    assert "older-scans-left-out" in {flag.code for flag in result.flags}
    assert {flag.time_point for flag in result.flags if flag.code == "thick-slices"} == {1, 2, 3}


def test_a_gap_outside_training_is_flagged(predictor: Predictor, scans: list[Scan]) -> None:
    """Ten days after the scan before is sooner than the model ever saw."""
    soon = replace(scans[1], acquired=FIRST + timedelta(days=10))
    flags = predictor.predict("recurrence", [scans[0], soon], saliency_for=()).result.flags
    (flag,) = [each for each in flags if each.code == "gap-outside-training"]
    assert (flag.time_point, "10 days" in flag.message) == (1, True)


def test_a_single_scan_is_answered_and_flagged(predictor: Predictor, scans: list[Scan]) -> None:
    """One scan is below the published benefit."""
    flags = predictor.predict("recurrence", scans[:1], saliency_for=()).result.flags
    assert [each.message for each in flags if each.code == "single-scan"] == ["single scan, below published benefit"]


def test_progress_is_told_step_by_step(predictor: Predictor, scans: list[Scan]) -> None:
    """One sentence per scan, then the reading."""
    told: list[str] = []
    predictor.predict("recurrence", scans[:2], saliency_for=(), progress=told.append)
    assert told[:2] == ["preparing scan 1 of 2", "preparing scan 2 of 2"]


@pytest.mark.parametrize("order", [[], [1, 0], [0, 0]])
def test_scans_out_of_order_are_refused(predictor: Predictor, scans: list[Scan], order: list[int]) -> None:
    """None, reversed, or two at one time."""
    with pytest.raises(PredictorError, match="expected"):
        predictor.predict("recurrence", [scans[each] for each in order])


def test_saliency_for_a_scan_that_is_not_there_is_refused(predictor: Predictor, scans: list[Scan]) -> None:
    """The message tells which scans there are."""
    with pytest.raises(PredictorError, match="expected scans 0 to 1"):
        predictor.predict("recurrence", scans[:2], saliency_for=(2,))


def test_a_missing_role_is_named_with_its_date(predictor: Predictor, scans: list[Scan]) -> None:
    """The model needs FLAIR."""
    other = replace(scans[0], series={"T1": scans[0].series["FLAIR"]}, digest="f" * 64)
    with pytest.raises(PredictorError, match="FLAIR of 2024-01-10"):
        predictor.prepare(other)


def test_a_broken_series_is_named_with_role_and_date(predictor: Predictor, scans: list[Scan]) -> None:
    """A missing slice is a gap, and the message says in which series."""
    paths = scans[0].series["FLAIR"]
    broken = replace(scans[0], series={"FLAIR": paths[:10] + paths[12:]}, digest="e" * 64)
    with pytest.raises(GeometryError, match="FLAIR of 2024-01-10: "):
        predictor.prepare(broken)


@pytest.mark.parametrize(("device", "precision"), [("tpu", "auto"), ("mps", "auto"), ("cpu", "float8")])
def test_an_unknown_device_or_precision_is_refused(bundle: Bundle, device: str, precision: str) -> None:
    """Nothing falls back silently."""
    with pytest.raises(PredictorError):
        Predictor(bundle, device=device, precision=precision)

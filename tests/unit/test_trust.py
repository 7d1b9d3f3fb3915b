"""From calibration patients to a bundle that says how far it can be trusted, and back: the whole way in one test."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from inference.bundle import load
from inference.bundle_files import OutputDefinition
from inference.evaluation.calibration import calibrate
from inference.evaluation.trust import LastScans, Trust, fit_trust, operating_points
from inference.models import Ensemble, build
from tests.factories.bundles import write_bundle

PATIENTS, LENGTHS, MEMBERS = 240, 6, 2


def answers(seed: int) -> LastScans:
    """Return what a model says that knows more the more scans it sees; every fifth patient has two scans only."""
    rng = np.random.default_rng(seed)
    labels = (rng.random(PATIENTS) < 0.3).astype(np.int8)
    strength = np.linspace(0.1, 2, LENGTHS)[:, None]
    logits = rng.standard_normal((LENGTHS, PATIENTS)) + strength * (2 * labels - 1)
    logits[2:, ::5] = np.nan
    labels[1::10] = -1
    return LastScans(logits=logits, labels=labels, patients=np.array([f"P{n:03d}" for n in range(PATIENTS)]))


@pytest.fixture(scope="module")
def fitted() -> Trust:
    """Return everything fitted on one cohort, with two scans' features of each patient."""
    found = answers(0)
    features = np.random.default_rng(1).standard_normal((2 * PATIENTS, MEMBERS * 8)).astype(np.float32)
    return fit_trust(found, features, np.repeat(found.patients, 2), encoders=MEMBERS)


def test_every_part_is_fitted_on_labelled_patients_by_number_of_scans(fitted: Trust) -> None:
    """Those without a label count for nothing, those with two scans for one and two."""
    known = int((answers(0).labels >= 0).sum())
    assert [each.n_scans for each in fitted.calibration.groups] == [(1, 1), (2, 2), (3, 3), (4, 6)]
    assert [each.n_patients for each in fitted.calibration.groups] == [known, known, known - 48, known - 48]
    assert [each.n_events + each.n_others for each in fitted.conformal.groups] == [known, known, known - 48, known - 48]
    slopes = [each.slope for each in fitted.calibration.groups]
    assert slopes == sorted(slopes)
    assert fitted.novelty.novelty.n_scans == 2 * PATIENTS


def test_the_final_landmark_is_one_row_per_patient(fitted: Trust) -> None:
    """From the most scans that each has."""
    found = answers(0)
    probabilities, labels = found.final(fitted.calibration)
    assert len(probabilities) == int((found.labels >= 0).sum())
    assert labels.sum() == (found.labels == 1).sum()
    assert probabilities[0] == calibrate(2, found.logits[1, :1], fitted.calibration)[0]
    assert probabilities[1] == calibrate(6, found.logits[5, 2:3], fitted.calibration)[0]


def test_thresholds_are_chosen_on_one_cohort_and_measured_on_another(fitted: Trust) -> None:
    """What they reach there is near the target, and told with how many patients and at which prevalence."""
    points = operating_points(fitted, answers(7), prevalence=0.2)
    assert [each.name for each in points] == ["rule-out", "rule-in"]
    assert points[0].sensitivity > 0.85
    assert points[1].specificity > 0.85
    assert all(each.predictive_values and each.predictive_values.prevalence == 0.2 for each in points)
    assert {each.n_patients for each in points} == {int((answers(7).labels >= 0).sum())}


def test_a_bundle_says_all_of_it(fitted: Trust, tmp_path: Path) -> None:
    """Read back as it was fitted."""
    torch.manual_seed(0)
    network = Ensemble.of([build("small", width=1) for _ in range(MEMBERS)])
    told = OutputDefinition(
        name="recurrence_365d",
        meaning="recurrence within a year",
        calibration=fitted.calibration,
        conformal=fitted.conformal,
        operating_points=operating_points(fitted, answers(7), prevalence=0.2),
    )
    novelty = fitted.novelty
    write_bundle(tmp_path, network, known=novelty.known, novelty=novelty.novelty, outputs=(told,))
    bundle = load(tmp_path)
    assert bundle.metadata.outputs == (told,)
    assert bundle.metadata.novelty == novelty.novelty
    assert bundle.known is not None
    assert np.array_equal(bundle.known.features.whitening, novelty.known.features.whitening)

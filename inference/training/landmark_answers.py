"""What an ensemble answers at a cohort's landmarks: its members' mean logit, calibrated as a node would report it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from inference.evaluation.calibration import calibrate
from inference.evaluation.landmarks import LandmarkAnswers
from inference.training.examples import Example
from inference.training.landmarks import cohort_landmarks
from inference.training.reading import encode_cohort, read

if TYPE_CHECKING:
    from inference.bundle_parts import Calibration
    from inference.models import Network
    from inference.training.cohort import Cohort


def landmark_answers(network: Network, cohort: Cohort, calibration: Calibration) -> LandmarkAnswers | None:
    """Return one row for every landmark of every patient whose label is known there; None where there is none."""
    rows = [(patient, row) for patient in range(len(cohort)) for row in cohort_landmarks(cohort, patient)]
    if not rows:
        return None
    examples = [_example(cohort, patient, row.places) for patient, row in rows]
    logits = read(network, encode_cohort(network, cohort), examples).mean(axis=0)
    lengths = np.array([len(each.places) for each in examples])
    probabilities = np.empty(len(rows))
    for length in np.unique(lengths):
        of = lengths == length
        probabilities[of] = calibrate(int(length), logits[of], calibration)
    return LandmarkAnswers(
        n_patients=len(cohort),
        years=np.array([row.year for _, row in rows]),
        whose=np.array([patient for patient, _ in rows]),
        probabilities=probabilities,
        labels=np.array([row.label for _, row in rows]),
    )


def _example(cohort: Cohort, patient: int, places: tuple[int, ...]) -> Example:
    """Return the patient's scans at these places as a question; days count from the newest of them."""
    scans = [cohort.scans(patient)[place] for place in places]
    days = cohort.days[scans]
    return Example(places=tuple(scans), days=tuple((days - days[-1]).tolist()))

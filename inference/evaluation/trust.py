"""Everything that a bundle says of how far it can be trusted, fitted in one go on the calibration patients.

They are seen by no member and used for nothing else. What the thresholds reach is measured elsewhere, on the test.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from inference.evaluation.calibration import calibrate, fit_calibration
from inference.evaluation.conformal import fit_conformal
from inference.evaluation.novelty import fit_novelty
from inference.evaluation.operating import TARGETS, Threshold, choose_threshold, reached

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from inference.bundle_parts import Calibration, Conformal, OperatingPoint
    from inference.evaluation.novelty import FittedNovelty


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class LastScans:
    """The members' mean logits (K, P) from each patient's last 1 to K scans, NaN where it has fewer; one column each.

    `labels` (P,) are 1, 0, or -1 where nobody knows; `patients` (P,) say who it is.
    """

    logits: NDArray[np.float64]
    labels: NDArray[np.int8]
    patients: NDArray[np.str_]

    def rows(self) -> list[tuple[int, NDArray[np.bool_]]]:
        """Return each number of scans that somebody labelled has, and who has it (P,)."""
        found = [(row + 1, (self.labels >= 0) & np.isfinite(logits)) for row, logits in enumerate(self.logits)]
        return [(n_scans, who) for n_scans, who in found if who.any()]

    def final(self, calibration: Calibration) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
        """Return calibrated probabilities from the most scans that each labelled patient has, and what happened."""
        probabilities = np.full(len(self.labels), np.nan)
        for n_scans, who in self.rows():  # ascending: the most scans come last
            probabilities[who] = calibrate(n_scans, self.logits[n_scans - 1, who], calibration)
        known = np.isfinite(probabilities)
        return probabilities[known], self.labels[known] == 1


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Trust:
    """What was fitted on the calibration patients."""

    calibration: Calibration
    conformal: Conformal
    thresholds: tuple[Threshold, ...]
    novelty: FittedNovelty


def fit_trust(
    answers: LastScans,
    features: NDArray[np.float32],
    scan_patients: NDArray[np.str_],
    *,
    encoders: int,
    blocks: NDArray[np.float32] | None = None,
) -> Trust:
    """Fit calibration, conformal sets, the thresholds of the targets, and novelty.

    Args:
        answers: of the calibration patients.
        features: of every scan of these patients (S, M x D), as the network encodes them.
        scan_patients: whose scan each of them is (S,).
        encoders: M, how many encoders stand side by side in the features.
        blocks: the same scans' `inference.novelty.block_means` (S, B).

    Raises:
        ValueError: if a part cannot be fitted: one outcome only, too few patients, or numbers that are none.
    """
    logits = {n_scans: answers.logits[n_scans - 1, who] for n_scans, who in answers.rows()}
    labels = {n_scans: answers.labels[who] == 1 for n_scans, who in answers.rows()}
    patients = {n_scans: answers.patients[who] for n_scans, who in answers.rows()}
    calibration = fit_calibration(logits, labels, patients)
    final = answers.final(calibration)
    return Trust(
        calibration=calibration,
        conformal=fit_conformal(logits, labels, patients),
        thresholds=tuple(choose_threshold(name, target, *final) for name, target in TARGETS.items()),
        novelty=fit_novelty(features, scan_patients, blocks=blocks, encoders=encoders),
    )


def operating_points(trust: Trust, test: LastScans, *, prevalence: float | None = None) -> tuple[OperatingPoint, ...]:
    """Return what the thresholds reach on unseen patients, each answered from the most scans it has.

    Raises:
        ValueError: if only one outcome is there.
    """
    final = test.final(trust.calibration)
    return tuple(reached(each, *final, prevalence=prevalence) for each in trust.thresholds)

"""What thicker slices cost: the delivered arm's AUROC on the same patients, their scans blurred through-plane."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from inference.evaluation.answers import final_answers
from inference.evaluation.bootstrap import Estimate, Sampling, estimate
from inference.evaluation.resampled import areas

if TYPE_CHECKING:
    from collections.abc import Iterable

    import numpy as np
    from numpy.typing import NDArray

    from inference.evaluation.predictions import Predictions


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class ThickSlices:
    """What the delivered arm says of the test patients with slices of `slice_mm`; `sd_voxels` is the blur's."""

    slice_mm: float
    sd_voxels: float
    logits: NDArray[np.float64]  # (seeds, 6, P)


@dataclass(frozen=True, slots=True, kw_only=True)
class SliceLoss:
    """AUROC with slices that thick, and how much that is below the test's own; paired, positive is a loss."""

    slice_mm: float
    sd_voxels: float
    n_patients: int
    auroc: Estimate
    loss: Estimate


def slice_losses(
    test: Predictions, delivered: str, thick: Iterable[ThickSlices], *, sampling: Sampling
) -> tuple[SliceLoss, ...]:
    """Return the loss at every thickness, on the same bootstrap samples of patients.

    Raises:
        ValueError: if the thick slices' patients are not those of the test.
    """
    sharp = final_answers(test, delivered)
    counts = sampling.counts(len(sharp.labels))
    before = areas(sharp.mean, sharp.labels, counts)
    losses = []
    for each in thick:
        if each.logits.shape[-1] != len(test.patients):
            found = each.logits.shape[-1]
            raise ValueError(f"slices of {each.slice_mm:g} mm: expected {len(test.patients)} patients, found {found}")
        after = areas(
            final_answers(replace(test, logits={delivered: each.logits}), delivered).mean, sharp.labels, counts
        )
        losses.append(
            SliceLoss(
                slice_mm=each.slice_mm,
                sd_voxels=each.sd_voxels,
                n_patients=len(sharp.labels),
                auroc=estimate(after),
                loss=estimate(before - after),
            )
        )
    return tuple(losses)

"""One prepared cohort, read in the parts of its split: nobody copies patients from folder to folder."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from inference.training.splits import CALIBRATION, TEST, SplitError, fold_name, part_names

if TYPE_CHECKING:
    from collections.abc import Sequence

    from inference.training.cohort import Cohort
    from inference.training.splits import Split

TRAIN: Final = "train"  # all folds


def named_parts(split: Split, text: str) -> tuple[str, ...]:
    """Return the parts that "train" (all folds) or names with commas between them mean.

    Raises:
        SplitError: if the split has no such part.
    """
    if text == TRAIN:
        return folds(split)
    names = tuple(each.strip() for each in text.split(","))
    if unknown := sorted(set(names) - set(part_names(split.plan))):
        expected = ", ".join((TRAIN, *part_names(split.plan)))
        raise SplitError(f"part: expected some of {expected}, found {', '.join(unknown)}")
    return names


def folds(split: Split, *, but: int | None = None) -> tuple[str, ...]:
    """Return the names of all folds, or of all but one.

    Raises:
        SplitError: if there is no fold of that number.
    """
    names = tuple(each for each in part_names(split.plan) if each not in (TEST, CALIBRATION))
    if but is not None and fold_name(but) not in names:
        raise SplitError(f"fold: expected 0 to {len(names) - 1}, found {but}")
    return tuple(each for each in names if but is None or each != fold_name(but))


def in_parts(cohort: Cohort, split: Split, names: Sequence[str]) -> Cohort:
    """Return a cohort's patients of these parts, in the cohort's order.

    Raises:
        SplitError: if a patient has no part, or nobody is left.
    """
    places = split.places(cohort.patients.tolist())
    chosen = np.sort(np.concatenate([places[name] for name in names]))
    if not len(chosen):
        raise SplitError(f"split: expected patients in {', '.join(names)}, found none of {len(cohort)} there")
    return cohort.subset(chosen)

"""The checkpoint of one lesson: what was learnt so far, and of which training, so that no other goes on from it."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from torch import Tensor

    from inference.training.cohort import Cohort

_TRAINING = "training"


def keep(path: Path, state: Mapping[str, Any], *, training: Mapping[str, str]) -> None:
    """Write a state with the words that tell one training from another: whole under its name, or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    torch.save({**state, _TRAINING: dict(training)}, part)
    part.replace(path)


def recall(path: Path) -> dict[str, Any] | None:
    """Return what was kept, on the CPU; None if nothing was."""
    if not path.is_file():
        return None
    kept: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    return kept


def check(kept: Mapping[str, Any], *, training: Mapping[str, str], path: Path) -> None:
    """Refuse the checkpoint of another training.

    Raises:
        ValueError: if anything that decides the weights differs; it says what.
    """
    found = kept.get(_TRAINING, {})
    other = [name for name, value in training.items() if found.get(name) != value]
    if other:
        raise ValueError(
            f"{path.parent}: expected the checkpoint of this training, found {path.name} of one with other "
            f"{', '.join(other)}; name another folder, or empty this one"
        )


def weights_digest(state: Mapping[str, Tensor]) -> str:
    """Return what tells these weights from others, to the bit."""
    digest = hashlib.sha256()
    for name, each in state.items():
        digest.update(name.encode())
        digest.update(each.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def cohort_digest(cohort: Cohort) -> str:
    """Return what tells a cohort from others: patients, days and outcomes, and the shape of its scans."""
    digest = hashlib.sha256(f"{cohort.volumes.shape} {cohort.volumes.dtype} {cohort.patients.tolist()}".encode())
    for each in (cohort.first, cohort.days, cohort.event_days, cohort.follow_up_days):
        digest.update(str(each.tolist()).encode())
    return digest.hexdigest()

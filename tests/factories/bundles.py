"""Tiny bundles with random weights: whole networks side by side, with whatever they are to say of their own trust."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from inference.bundle import definition_of, save, shipped
from inference.bundle_files import read_metadata
from inference.models import build
from inference.novelty import FeatureDistribution

if TYPE_CHECKING:
    from pathlib import Path

    from inference.bundle_parts import Conformal, Novelty

MEMBERS = 2


def any_features(encoders: int, width: int) -> FeatureDistribution:
    """Return a distribution around nothing, of SD 1."""
    return FeatureDistribution(
        mean=np.zeros((encoders, 8 * width), np.float32),
        whitening=np.stack([np.eye(8 * width, dtype=np.float32)] * encoders),
    )


def tiny_bundle(
    folder: Path, *, novelty: Novelty | None = None, conformal: Conformal | None = None, width: int = 1
) -> Path:
    """Write a bundle that says of itself what the shipped one does, and how far it may be trusted."""
    torch.manual_seed(0)
    network = build("small", members=MEMBERS, width=width, own_encoders=True)
    told = read_metadata(shipped("phantom_recurrence"))
    outputs = (told.outputs[0].model_copy(update={"conformal": conformal}),)
    changes: dict[str, Any] = {"novelty": novelty, "outputs": outputs, "scores": ()}
    save(
        folder,
        network=network,
        definition=definition_of(network),
        metadata=told.model_copy(update=changes),
        features=None if novelty is None else any_features(MEMBERS, width),
    )
    return folder

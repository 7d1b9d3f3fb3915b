"""Bundles with random weights, with whatever they are to say of themselves."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from inference.bundle import definition_of, save, shipped
from inference.bundle_files import OutputDefinition, read_metadata
from inference.models import build
from inference.novelty import FeatureDistribution, KnownScans

if TYPE_CHECKING:
    from pathlib import Path

    from inference.bundle_parts import Conformal, Novelty
    from inference.models import Network

MEMBERS = 2


def any_scans(encoders: int, width: int) -> KnownScans:
    """Return a distribution of features around nothing, of SD 1."""
    return KnownScans(
        features=FeatureDistribution(
            mean=np.zeros((encoders, 8 * width), np.float32),
            whitening=np.stack([np.eye(8 * width, dtype=np.float32)] * encoders),
        )
    )


def write_bundle(folder: Path, network: Network, *, known: KnownScans | None = None, **changes: Any) -> Path:
    """Write a bundle of the small size that says of itself what the shipped one does, but for these changes."""
    told = read_metadata(shipped("phantom_recurrence")).model_copy(update={"novelty": None, "scores": (), **changes})
    save(folder, network=network, definition=definition_of(network), metadata=told, known=known)
    return folder


def tiny_bundle(
    folder: Path, *, novelty: Novelty | None = None, conformal: Conformal | None = None, width: int = 1
) -> Path:
    """Write a bundle of two whole networks that says how far it may be trusted."""
    torch.manual_seed(0)
    network = build("small", members=MEMBERS, width=width, own_encoders=True)
    plain = OutputDefinition(name="recurrence_365d", meaning="recurrence within a year", conformal=conformal)
    known = None if novelty is None else any_scans(MEMBERS, width)
    return write_bundle(folder, network, known=known, novelty=novelty, outputs=(plain,))

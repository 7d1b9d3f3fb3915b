"""Turn a trained network into the bundle that ships, with metadata and a model card that say what it is."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from inference.bundle import (
    CARD,
    Calibration,
    Metadata,
    OperatingPoint,
    OutputDefinition,
    Score,
    TrainingRanges,
    definition_of,
    library_versions,
    save,
)

if TYPE_CHECKING:
    from pathlib import Path

    from inference.bundle_parts import Conformal
    from inference.evaluation.novelty import FittedNovelty
    from inference.models import Network

NAME = "phantom_recurrence"
HORIZON_DAYS = 365
OUTPUT = "recurrence_365d"
INTENDED_USE = (
    "Research and software tests with synthetic phantoms only. Not a medical device; not for patients: "
    "its number says nothing about a human."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Release:
    """What a bundle says about itself beside its weights."""

    version: str
    training_data: str
    ranges: TrainingRanges
    calibration: Calibration = field(default_factory=Calibration)
    conformal: Conformal | None = None
    novelty: FittedNovelty | None = None
    scores: tuple[Score, ...] = ()
    operating_points: tuple[OperatingPoint, ...] = ()


def release(folder: Path, network: Network, about: Release) -> str:
    """Write the small recurrence network, or an ensemble of such, as a bundle; return its digest."""
    output = OutputDefinition(
        name=OUTPUT,
        meaning=f"recurrence or progression within {HORIZON_DAYS} days after the last scan",
        calibration=about.calibration,
        conformal=about.conformal,
        operating_points=about.operating_points,
    )
    metadata = Metadata(
        version=about.version,
        changelog={about.version: "see docs/README.md"},
        **library_versions(),
        name=NAME,
        task="Risk of recurrence from serial post-operative FLAIR MRI (synthetic phantoms)",
        description="Shared 3-D ResNet18, self-attention over scans, LSTM; order pretext, then recurrence",
        authors="the temporal-dicom-node developers",
        copyright="Apache-2.0",
        intended_use=INTENDED_USE,
        network_data_format=_data_format(network.config.input_shape),
        training_data=about.training_data,
        synthetic_training_data=True,
        roles=("FLAIR",),
        input_shape=network.config.input_shape,
        template="mni152",
        outputs=(output,),
        horizon_days=HORIZON_DAYS,
        training_ranges=about.ranges,
        novelty=None if about.novelty is None else about.novelty.novelty,
        scores=about.scores,
    )
    features = None if about.novelty is None else about.novelty.distribution
    return save(folder, network=network, definition=definition_of(network), metadata=metadata, features=features)


def write_card(folder: Path, text: str) -> None:
    """Write the model card, which the digest leaves out."""
    (folder / CARD).parent.mkdir(parents=True, exist_ok=True)
    (folder / CARD).write_text(text, encoding="utf-8")


def _data_format(shape: tuple[int, int, int]) -> dict[str, Any]:
    """Return MONAI's description of input and output."""
    return {
        "inputs": {
            "image": {
                "type": "image",
                "format": "magnitude",
                "modality": "MR",
                "num_channels": 1,
                "spatial_shape": list(shape),
                "dtype": "float32",
                "value_range": [0, 1],
                "is_patch_data": False,
                "channel_def": {"0": "FLAIR, one volume per scan, oldest first"},
            }
        },
        "outputs": {
            "pred": {
                "type": "logits",
                "format": "classification",
                "num_channels": 1,
                "spatial_shape": [1],
                "dtype": "float32",
                "value_range": [],
                "is_patch_data": False,
                "channel_def": {"0": OUTPUT},
            }
        },
    }

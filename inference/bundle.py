"""MONAI Bundles of temporal networks: read with suspicion, written with everything that a report must say.

A bundle is a folder: `configs/metadata.json` (MONAI's fields and ours), `configs/inference.json` (the network's
definition), `models/model.pt` (a state dict, float16), `models/novelty.npz` where the bundle knows what it has seen,
`docs/README.md` (the model card). It is pinned by a digest, and the digest is compared before a byte of it is parsed.
No expression of a config is ever evaluated here: the network definition may name `inference.models.build` and nothing
else.
"""

from __future__ import annotations

import json
import math
import pickle
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import monai
import numpy as np
import torch

from inference.bundle_files import (
    CARD,
    INFERENCE,
    METADATA,
    NOVELTY,
    WEIGHTS,
    BundleError,
    Calibration,
    Metadata,
    NetworkDefinition,
    Novelty,
    OperatingPoint,
    OutputDefinition,
    Score,
    TrainingRanges,
    bundle_digest,
    parse,
    read_metadata,
    shipped,
)
from inference.models import SIZES, Ensemble, Network, build
from inference.novelty import BLOCKS, KnownScans
from inference.results import ModelCard

__all__ = [
    "CARD",
    "Bundle",
    "BundleError",
    "Calibration",
    "Metadata",
    "NetworkDefinition",
    "OperatingPoint",
    "OutputDefinition",
    "Score",
    "TrainingRanges",
    "bundle_digest",
    "definition_of",
    "load",
    "save",
    "shipped",
]


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Bundle:
    """A loaded bundle: its network in evaluation mode on the CPU, and what it says about itself."""

    folder: Path
    digest: str
    metadata: Metadata
    definition: NetworkDefinition
    network: Network
    known: KnownScans | None = None  # of calibration, where the metadata speaks of novelty

    @property
    def card(self) -> ModelCard:
        """Return what a report says about the model."""
        return ModelCard(
            name=self.metadata.name,
            version=self.metadata.version,
            digest=self.digest,
            training_data=self.metadata.training_data,
            intended_use=self.metadata.intended_use,
            synthetic=self.metadata.synthetic_training_data,
        )


def load(folder: Path, *, expected_digest: str | None = None) -> Bundle:
    """Load a bundle; its digest is compared before anything in it is parsed.

    Raises:
        BundleError: if the digest differs, or a file is missing, malformed or does not fit the others.
    """
    digest = bundle_digest(folder)
    if expected_digest is not None and digest != expected_digest:
        raise BundleError(f"{folder}: expected digest {expected_digest}, found {digest}")
    metadata = read_metadata(folder)
    definition = parse(folder / INFERENCE, NetworkDefinition, "network_def")
    _check_agreement(folder, metadata, definition)
    network = build(**definition.model_dump(exclude={"target"}))
    _load_weights(folder / WEIGHTS, network)
    return Bundle(
        folder=folder,
        digest=digest,
        metadata=metadata,
        definition=definition,
        network=network.eval(),
        known=None if metadata.novelty is None else _load_known(folder / NOVELTY, metadata.novelty, network),
    )


def _check_agreement(folder: Path, metadata: Metadata, definition: NetworkDefinition) -> None:
    """Refuse metadata and network definition that contradict each other."""
    if len(metadata.outputs) != definition.outputs:
        raise BundleError(f"{folder}: metadata names {len(metadata.outputs)} outputs, the network {definition.outputs}")
    shape = SIZES[definition.size].input_shape
    if metadata.input_shape != shape:
        raise BundleError(f"{folder}: metadata says input {metadata.input_shape}, the network takes {shape}")


def _load_weights(path: Path, network: Network) -> None:
    """Load a state dict without unpickling anything but tensors."""
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        network.load_state_dict(state)
    except OSError as error:
        raise BundleError(f"{path}: expected a readable file, found {type(error).__name__}") from error
    except (RuntimeError, pickle.UnpicklingError, AttributeError, TypeError, EOFError) as error:
        raise BundleError(f"{path}: expected the weights of this network, found {type(error).__name__}") from error


def _load_known(path: Path, novelty: Novelty, network: Network) -> KnownScans:
    """Load what is known of calibration scans, for as many encoders and features as the network has."""
    try:
        found = KnownScans.load(path)
    except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile) as error:
        raise BundleError(f"{path}: expected a feature distribution, found {type(error).__name__}: {error}") from error
    if found.features.mean.shape != (expected := _features_shape(network)):
        raise BundleError(f"{path}: expected features of shape {expected}, found {found.features.mean.shape}")
    blocks = None if found.blocks is None else found.blocks.mean.shape
    if blocks != (expected_blocks := None if novelty.block_limit is None else (1, math.prod(BLOCKS))):
        raise BundleError(f"{path}: expected block means of shape {expected_blocks}, found {blocks}")
    return found


def _features_shape(network: Network) -> tuple[int, int]:
    """Return the number of encoders and of features of each."""
    encoders = network.config.members if isinstance(network, Ensemble) else 1
    return encoders, network.config.features


def save(
    folder: Path,
    *,
    network: Network,
    definition: NetworkDefinition,
    metadata: Metadata,
    known: KnownScans | None = None,
) -> str:
    """Write a bundle (weights as float16) and return its digest; the model card is written apart.

    Raises:
        BundleError: if the metadata speaks of novelty and nothing is known of calibration, or the other way round.
    """
    if (metadata.novelty is None) != (known is None):
        raise BundleError(f"{folder}: expected novelty in the metadata and what is known of calibration, or neither")
    for path in (METADATA, INFERENCE, WEIGHTS):
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
    state = {key: each.half() if each.is_floating_point() else each for key, each in network.state_dict().items()}
    torch.save(state, folder / WEIGHTS)
    (folder / NOVELTY).unlink(missing_ok=True)
    if known is not None:
        known.save(folder / NOVELTY)
    (folder / METADATA).write_text(metadata.model_dump_json(by_alias=True, indent=2) + "\n", encoding="utf-8")
    (folder / INFERENCE).write_text(json.dumps(_inference_config(definition), indent=2) + "\n", encoding="utf-8")
    return bundle_digest(folder)


def definition_of(network: Network, size: Literal["small", "published"] = "small") -> NetworkDefinition:
    """Return how `build` makes a network of this shape, which is one of `size` but for its width and members."""
    config = network.config
    return NetworkDefinition(
        size=size,
        outputs=config.outputs,
        members=config.members,
        width=None if config.width == SIZES[size].width else config.width,
        own_encoders=isinstance(network, Ensemble),
        time_gap=config.time_gap,
    )


def _inference_config(definition: NetworkDefinition) -> dict[str, Any]:
    """Return what `monai.bundle.ConfigParser` needs to build the network and load its weights."""
    return {
        "imports": ["$import torch"],
        "bundle_root": ".",
        "device": "$torch.device('cuda' if torch.cuda.is_available() else 'cpu')",
        "network_def": definition.model_dump(by_alias=True, exclude_none=True),
        "weights": "$torch.load(@bundle_root + '/models/model.pt', map_location='cpu', weights_only=True)",
        "network": "$@network_def.to(@device)",
        "initialize": ["$@network.load_state_dict(@weights)", "$@network.eval()"],
    }


def library_versions() -> dict[str, str]:
    """Return the versions that MONAI's metadata schema asks for."""
    return {
        "monai_version": monai.__version__,
        "pytorch_version": torch.__version__.split("+")[0],
        "numpy_version": np.__version__,
    }

"""MONAI Bundles of temporal networks: read with suspicion, written with everything that a report must say.

A bundle is a folder: `configs/metadata.json` (MONAI's fields and ours), `configs/inference.json` (the network's
definition), `models/model.pt` (a state dict, float16), `docs/README.md` (the model card). It is pinned by a digest,
and the digest is compared before a byte of it is parsed. No expression of a config is ever evaluated here: the network
definition may name `inference.models.build` and nothing else.
"""

from __future__ import annotations

import hashlib
import json
import pickle
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar

import monai
import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from inference.models import SIZES, TemporalNetwork, build
from inference.results import ModelCard

if TYPE_CHECKING:
    from collections.abc import Iterator

METADATA = Path("configs/metadata.json")
INFERENCE = Path("configs/inference.json")
WEIGHTS = Path("models/model.pt")
CARD = Path("docs/README.md")
_NOT_DIGESTED = ("docs", "__pycache__")
_SCHEMA = "https://github.com/Project-MONAI/MONAI-extra-test-data/releases/download/0.8.1/meta_schema_20240725.json"

PartT = TypeVar("PartT", bound="_Part")
Probability = Annotated[float, Field(ge=0, le=1)]


class BundleError(ValueError):
    """A bundle cannot be used; the message says which file, what was expected and what was found."""


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Calibration(_Part):
    """Platt scaling of one output: calibrated = sigmoid(slope x logit + intercept)."""

    slope: float = 1.0
    intercept: float = 0.0


class OperatingPoint(_Part):
    """A threshold on the calibrated probability and what it reached on unseen data."""

    name: str
    threshold: Probability
    sensitivity: Probability
    specificity: Probability


class OutputDefinition(_Part):
    """One probability that the network answers."""

    name: str
    meaning: str
    calibration: Calibration = Calibration()
    operating_points: tuple[OperatingPoint, ...] = ()


class TrainingRanges(_Part):
    """What the network saw in training; a run outside of it is flagged."""

    gap_days: tuple[float, float]
    slice_thickness_mm: tuple[float, float]
    n_scans: tuple[int, int]


class Score(_Part):
    """How well the last `n_scans` scans of unseen patients were answered, beside the best any model could do."""

    n_scans: int
    n_patients: int
    auroc: Probability
    auroc_lower: Probability  # 95 %, bootstrap over patients
    auroc_upper: Probability
    brier: Probability
    ece: Probability
    ceiling_auroc: Probability | None = None


class Metadata(_Part):
    """`metadata.json`: MONAI's own fields first, then ours."""

    schema_: str = Field(alias="schema", default=_SCHEMA)
    version: str
    changelog: dict[str, str]
    monai_version: str
    pytorch_version: str
    numpy_version: str
    required_packages_version: dict[str, str] = {}
    name: str
    task: str
    description: str
    authors: str
    copyright: str
    intended_use: str
    network_data_format: dict[str, Any]

    training_data: str
    synthetic_training_data: bool
    roles: tuple[str, ...]
    input_shape: tuple[int, int, int]  # (Z, Y, X)
    template: str
    outputs: tuple[OutputDefinition, ...] = Field(min_length=1)
    horizon_days: int = Field(gt=0)
    training_ranges: TrainingRanges
    scores: tuple[Score, ...] = ()

    @model_validator(mode="after")
    def _one_role(self) -> Metadata:
        """Refuse bundles of several roles until the predictor stacks them."""
        if len(self.roles) != 1:
            msg = f"roles: expected exactly one, found {list(self.roles)}"
            raise ValueError(msg)
        return self


class NetworkDefinition(_Part):
    """The `network_def` of `inference.json`."""

    target: Literal["inference.models.build"] = Field(alias="_target_", default="inference.models.build")
    size: Literal["small", "published"]
    outputs: int = Field(ge=1, default=1)
    members: int = Field(ge=1, le=16, default=1)


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Bundle:
    """A loaded bundle: its network in evaluation mode on the CPU, and what it says about itself."""

    folder: Path
    digest: str
    metadata: Metadata
    definition: NetworkDefinition
    network: TemporalNetwork

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


def shipped(name: str) -> Path:
    """Return the folder of a bundle that comes with this package.

    Raises:
        BundleError: if there is none of that name.
    """
    folder = Path(__file__).parent / "bundles" / name
    if not (folder / METADATA).is_file():
        found = sorted(each.parent.parent.name for each in folder.parent.glob(f"*/{METADATA}"))
        raise BundleError(f"shipped bundle {name!r}: expected one of {found}")
    return folder


def bundle_digest(folder: Path) -> str:
    """Return "sha256:..." over path, length and bytes of every file, in path order; `docs/` is left out.

    The model card may be reworded without making it another model; nothing that decides an answer lies in `docs/`.

    Raises:
        BundleError: if the folder does not exist or holds a symbolic link.
    """
    digest = hashlib.sha256()
    for path in _files(folder):
        content = path.read_bytes()
        name = path.relative_to(folder).as_posix().encode()
        digest.update(len(name).to_bytes(8, "big") + name + len(content).to_bytes(8, "big") + content)
    return f"sha256:{digest.hexdigest()}"


def _files(folder: Path) -> Iterator[Path]:
    """Yield the files that the digest covers, in the order of their POSIX paths."""
    if not folder.is_dir():
        raise BundleError(f"{folder}: expected the folder of a bundle, found none")
    for path in sorted(folder.rglob("*"), key=lambda each: each.relative_to(folder).as_posix()):
        if path.is_symlink():
            raise BundleError(f"{path}: expected a regular file, found a symbolic link")
        if path.is_file() and not any(part in _NOT_DIGESTED for part in path.relative_to(folder).parts[:-1]):
            yield path


def load(folder: Path, *, expected_digest: str | None = None) -> Bundle:
    """Load a bundle; its digest is compared before anything in it is parsed.

    Raises:
        BundleError: if the digest differs, or a file is missing, malformed or does not fit the others.
    """
    digest = bundle_digest(folder)
    if expected_digest is not None and digest != expected_digest:
        raise BundleError(f"{folder}: expected digest {expected_digest}, found {digest}")
    metadata = _parse(folder / METADATA, Metadata, None)
    definition = _parse(folder / INFERENCE, NetworkDefinition, "network_def")
    _check_agreement(folder, metadata, definition)
    network = build(definition.size, outputs=definition.outputs, members=definition.members)
    _load_weights(folder / WEIGHTS, network)
    return Bundle(folder=folder, digest=digest, metadata=metadata, definition=definition, network=network.eval())


def _parse(path: Path, kind: type[PartT], key: str | None) -> PartT:
    """Parse one JSON file, or one key of it."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        return kind.model_validate(content if key is None else content[key])
    except OSError as error:
        raise BundleError(f"{path}: expected a readable file, found {type(error).__name__}") from error
    except (KeyError, TypeError) as error:
        raise BundleError(f"{path}: expected an object with the key {key!r}") from error
    except ValidationError as error:
        rules = "; ".join(f"{'.'.join(map(str, each['loc']))}: {each['msg']}" for each in error.errors())
        raise BundleError(f"{path}: {rules}") from error
    except ValueError as error:
        raise BundleError(f"{path}: expected JSON, found {error}") from error


def _check_agreement(folder: Path, metadata: Metadata, definition: NetworkDefinition) -> None:
    """Refuse metadata and network definition that contradict each other."""
    if len(metadata.outputs) != definition.outputs:
        raise BundleError(f"{folder}: metadata names {len(metadata.outputs)} outputs, the network {definition.outputs}")
    shape = SIZES[definition.size].input_shape
    if metadata.input_shape != shape:
        raise BundleError(f"{folder}: metadata says input {metadata.input_shape}, the network takes {shape}")


def _load_weights(path: Path, network: TemporalNetwork) -> None:
    """Load a state dict without unpickling anything but tensors."""
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        network.load_state_dict(state)
    except OSError as error:
        raise BundleError(f"{path}: expected a readable file, found {type(error).__name__}") from error
    except (RuntimeError, pickle.UnpicklingError, AttributeError, TypeError, EOFError) as error:
        raise BundleError(f"{path}: expected the weights of this network, found {type(error).__name__}") from error


def save(folder: Path, *, network: TemporalNetwork, definition: NetworkDefinition, metadata: Metadata) -> str:
    """Write a bundle (weights as float16) and return its digest; the model card is written apart."""
    for path in (METADATA, INFERENCE, WEIGHTS):
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
    state = {key: each.half() if each.is_floating_point() else each for key, each in network.state_dict().items()}
    torch.save(state, folder / WEIGHTS)
    (folder / METADATA).write_text(metadata.model_dump_json(by_alias=True, indent=2) + "\n", encoding="utf-8")
    (folder / INFERENCE).write_text(json.dumps(_inference_config(definition), indent=2) + "\n", encoding="utf-8")
    return bundle_digest(folder)


def _inference_config(definition: NetworkDefinition) -> dict[str, Any]:
    """Return what `monai.bundle.ConfigParser` needs to build the network and load its weights."""
    return {
        "imports": ["$import torch"],
        "bundle_root": ".",
        "device": "$torch.device('cuda' if torch.cuda.is_available() else 'cpu')",
        "network_def": definition.model_dump(by_alias=True),
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

"""A bundle's folder without its network: names, digest, metadata. Pure Python, so that a node need not load torch."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from pydantic import Field, ValidationError, model_validator

from inference.bundle_parts import (
    Calibration,
    ChosenThreshold,
    Conformal,
    Novelty,
    OperatingPoint,
    Part,
    Probability,
    SaliencyEvidence,
)
from inference.selection import SelectionRule

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = [
    "CARD",
    "INFERENCE",
    "METADATA",
    "NOVELTY",
    "WEIGHTS",
    "BundleError",
    "Calibration",
    "Conformal",
    "Metadata",
    "NetworkDefinition",
    "Novelty",
    "OperatingPoint",
    "OutputDefinition",
    "Part",
    "SaliencyEvidence",
    "Score",
    "SelectionRule",
    "TrainingRanges",
    "bundle_digest",
    "parse",
    "read_metadata",
    "shipped",
]

METADATA = Path("configs/metadata.json")
INFERENCE = Path("configs/inference.json")
WEIGHTS = Path("models/model.pt")
NOVELTY = Path("models/novelty.npz")  # only where the metadata speaks of novelty
CARD = Path("docs/README.md")
_NOT_DIGESTED = ("docs", "__pycache__")
_SCHEMA = "https://github.com/Project-MONAI/MONAI-extra-test-data/releases/download/0.8.1/meta_schema_20240725.json"

PartT = TypeVar("PartT", bound="Part")


class BundleError(ValueError):
    """A bundle cannot be used; the message says which file, what was expected and what was found."""


class OutputDefinition(Part):
    """One probability that the network answers."""

    name: str
    meaning: str
    calibration: Calibration = Calibration()
    conformal: Conformal | None = None
    thresholds: tuple[ChosenThreshold, ...] = ()  # fixed before any test was opened
    operating_points: tuple[OperatingPoint, ...] = ()  # what they reached on unseen patients; empty: not measured


class TrainingRanges(Part):
    """What the network saw in training; a run outside of it is flagged."""

    gap_days: tuple[float, float]
    slice_thickness_mm: tuple[float, float]
    n_scans: tuple[int, int]


class Score(Part):
    """How well the last `n_scans` scans of unseen patients were answered, beside the best any model could do."""

    n_scans: int
    n_patients: int
    auroc: Probability
    auroc_lower: Probability  # 95 %, bootstrap over patients
    auroc_upper: Probability
    brier: Probability
    ece: Probability
    ceiling_auroc: Probability | None = None


class Metadata(Part):
    """`metadata.json`: MONAI's own fields first, then ours."""

    schema_: str = Field(alias="schema", default=_SCHEMA)
    version: str
    changelog: dict[str, str]
    monai_version: str
    pytorch_version: str
    numpy_version: str
    required_packages_version: dict[str, str] = Field(default_factory=dict)
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
    selection: SelectionRule | None = None  # by which the scans of training were chosen; None: nobody wrote it down
    novelty: Novelty | None = None
    saliency: SaliencyEvidence | None = None  # None: nobody checked the maps
    scores: tuple[Score, ...] = ()

    @model_validator(mode="after")
    def _one_role(self) -> Metadata:
        """Refuse bundles of several roles until the predictor stacks them."""
        if len(self.roles) != 1:
            msg = f"roles: expected exactly one, found {list(self.roles)}"
            raise ValueError(msg)
        return self

    @model_validator(mode="after")
    def _whole_rule(self) -> Metadata:
        """Refuse a rule that leaves open what a node must know, or reads other series than the network."""
        rule = self.selection
        if rule is not None and (rule.roles != self.roles or not rule.kinds or rule.maximum is None):
            msg = f"selection: expected roles {list(self.roles)}, kinds and a maximum, found {rule.model_dump_json()}"
            raise ValueError(msg)
        return self

    @property
    def most_scans(self) -> int:
        """Return how many scans the network is shown at most: as its rule says, else as training had."""
        pinned = None if self.selection is None else self.selection.maximum
        return self.training_ranges.n_scans[1] if pinned is None else pinned


class NetworkDefinition(Part):
    """The `network_def` of `inference.json`: what `inference.models.build` is called with.

    Members are heads over one encoder, or whole networks that were trained apart, each with an encoder of its own.
    """

    target: Literal["inference.models.build"] = Field(alias="_target_", default="inference.models.build")
    size: Literal["small", "published"]
    outputs: int = Field(ge=1, default=1)
    members: int = Field(ge=1, le=32, default=1)
    width: int | None = Field(ge=1, le=256, default=None)  # None: as `size` has it
    own_encoders: bool = False
    time_gap: bool = False  # the heads read when each scan was acquired


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


def read_metadata(folder: Path) -> Metadata:
    """Read what a bundle says about itself; check its digest first.

    Raises:
        BundleError: if the file is missing or malformed, or speaks of a file that is not there.
    """
    metadata = parse(folder / METADATA, Metadata, None)
    if metadata.novelty is not None and not (folder / NOVELTY).is_file():
        raise BundleError(f"{folder / NOVELTY}: expected what the metadata's novelty speaks of, found none")
    return metadata


def parse(path: Path, kind: type[PartT], key: str | None) -> PartT:
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

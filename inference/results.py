"""What a run answers: frozen values without torch, kept as JSON in the ledger and read by the report templates."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from datetime import date
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray


class AbstentionKind(StrEnum):
    """Why there is no number, in the meanings of PS3.16 CID 42 (Numeric Value Qualifier)."""

    NOT_ATTEMPTED = "114007"  # a gate said no before the model was asked
    INDETERMINATE = "114011"  # out of distribution, or too uncertain to be told
    FAILURE = "114006"  # the computation broke


@dataclass(frozen=True, slots=True, kw_only=True)
class Abstention:
    """A reason instead of an answer; never shown as 0 %."""

    kind: AbstentionKind
    reason: str
    code: str = ""  # what the reason is about, as a quality flag's code: a report template may have words for it


@dataclass(frozen=True, slots=True, kw_only=True)
class Output:
    """One probability of a model: calibrated, raw, and the 95 % interval of the ensemble (all in 0..1).

    `possible` are the answers that the conformal set leaves (False before True, maybe none), with the share `coverage`
    of patients whose outcome is among theirs; None: the bundle has no such set.
    """

    name: str  # as in the bundle's metadata, for example "recurrence_365d"
    probability: float
    raw_probability: float
    lower: float | None = None
    upper: float | None = None
    possible: tuple[bool, ...] | None = None
    coverage: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PrefixRisk:
    """The primary probability when the model sees only the first `n_scans` time points."""

    n_scans: int
    acquired: date  # of the newest scan of this prefix
    probability: float


@dataclass(frozen=True, slots=True, kw_only=True)
class QualityFlag:
    """A remark that the reader of the report must see; `time_point` counts from 0 (oldest), None: the whole run."""

    code: str  # for example "thick-slices"
    message: str
    time_point: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelCard:
    """Which model answered, trained on what, meant for whom."""

    name: str
    version: str
    digest: str  # "sha256:..." over the bundle's files
    training_data: str
    intended_use: str
    synthetic: bool  # trained on phantoms: its number says nothing about a human


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """The answer of one run. Outputs are empty exactly if the model abstained.

    `novelty` says of each used scan, oldest first, how far it lies from what the model was calibrated on, in multiples
    of what the bundle allows: above 1 is out of distribution. Empty: the bundle cannot tell.
    """

    task: str
    model: ModelCard
    horizon_days: int | None
    outputs: tuple[Output, ...]
    trajectory: tuple[PrefixRisk, ...] = ()
    flags: tuple[QualityFlag, ...] = ()
    abstention: Abstention | None = None
    saliency_method: str | None = None
    novelty: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        """Refuse a result that answers and abstains at once, or does neither.

        Raises:
            ValueError: if outputs and abstention are both present or both absent, or an abstention has a trajectory.
        """
        if bool(self.outputs) == (self.abstention is not None):
            msg = f"result of task {self.task!r}: expected outputs or an abstention, found {len(self.outputs)} outputs"
            raise ValueError(msg)
        if self.abstention is not None and self.trajectory:
            found = f"found {len(self.trajectory)} probabilities"
            msg = f"result of task {self.task!r}: expected no trajectory beside an abstention, {found}"
            raise ValueError(msg)

    def to_json(self) -> str:
        """Return canonical JSON: sorted keys, dates as ISO 8601."""
        return json.dumps(asdict(self), sort_keys=True, default=str)

    @classmethod
    def from_json(cls, text: str) -> Result:
        """Rebuild a result from `to_json`, also one that was stored before the newer, optional fields were known.

        Raises:
            KeyError: if a field is missing.
        """
        fields: dict[str, Any] = json.loads(text)
        abstention = fields["abstention"]
        return cls(
            task=fields["task"],
            model=ModelCard(**fields["model"]),
            horizon_days=fields["horizon_days"],
            outputs=tuple(_output(each) for each in fields["outputs"]),
            trajectory=tuple(
                PrefixRisk(**{**each, "acquired": date.fromisoformat(each["acquired"])})
                for each in fields["trajectory"]
            ),
            flags=tuple(QualityFlag(**each) for each in fields["flags"]),
            abstention=abstention and Abstention(**{**abstention, "kind": AbstentionKind(abstention["kind"])}),
            saliency_method=fields["saliency_method"],
            novelty=tuple(fields.get("novelty", ())),
        )


def _output(fields: dict[str, Any]) -> Output:
    possible = fields.get("possible")
    return Output(**{**fields, "possible": None if possible is None else tuple(possible)})


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceSlice:
    """The image plane a slice of a volume was read from; `frame` counts from 1 in multi-frame objects, else None."""

    sop_class_uid: str
    sop_instance_uid: str
    frame: int | None = None


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class SaliencyMap:
    """A saliency map on the source series' own slices, beside the anatomy it explains.

    `values` and `anatomy` have shape (Z, Y, X); `values` lie in 0..1, `anatomy` in the series' rescaled units.
    `affine` (4, 4) maps voxel indices (x, y, z) to LPS millimetres; `slices[z]` says where slice z came from.
    """

    time_point: int  # from 0, oldest first, among the time points of the run
    series_instance_uid: str
    frame_of_reference_uid: str
    values: NDArray[np.float32]
    anatomy: NDArray[np.float32]
    affine: NDArray[np.float64]
    slices: tuple[SourceSlice, ...]

    def write(self, file: BinaryIO) -> None:
        """Write the map as uncompressed .npz without pickled objects."""
        header = {
            "time_point": self.time_point,
            "series_instance_uid": self.series_instance_uid,
            "frame_of_reference_uid": self.frame_of_reference_uid,
            "slices": [asdict(each) for each in self.slices],
        }
        np.savez(
            file,
            values=self.values,
            anatomy=self.anatomy,
            affine=self.affine,
            header=np.frombuffer(json.dumps(header).encode(), dtype=np.uint8),
        )

    def save(self, path: Path) -> None:
        """Write the map to a file.

        Raises:
            OSError: if the disk says no.
        """
        with path.open("wb") as file:
            self.write(file)

    @classmethod
    def load(cls, path: Path) -> SaliencyMap:
        """Read a map written by `save`.

        Raises:
            OSError: if the file cannot be read.
            ValueError: if it holds pickled objects.
        """
        with np.load(path, allow_pickle=False) as arrays:
            header = json.loads(arrays["header"].tobytes())
            return cls(
                time_point=header["time_point"],
                series_instance_uid=header["series_instance_uid"],
                frame_of_reference_uid=header["frame_of_reference_uid"],
                values=arrays["values"],
                anatomy=arrays["anatomy"],
                affine=arrays["affine"],
                slices=tuple(SourceSlice(**each) for each in header["slices"]),
            )

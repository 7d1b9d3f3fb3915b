"""What preprocessing answers: a volume in the model's space, and the way back."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

import numpy as np

from inference.results import QualityFlag

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray


class PreprocessError(ValueError):
    """A volume could not be brought into the model's space; the message says what was measured and expected."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Quality:
    """How well a scan lies on the template.

    `coverage` is the share of the template's brain inside the scanned slab, `overlap` the share on tissue of the scan,
    `mutual_information` (nats) the registration's last value.
    """

    coverage: float
    overlap: float
    mutual_information: float
    flags: tuple[QualityFlag, ...] = ()


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Preprocessed:
    """A scan in the model's space.

    `array` has shape (Z, Y, X), 0..1 inside the brain and 0 outside; `affine` (4, 4) maps its voxels (x, y, z) to the
    template's LPS millimetres; `template_to_source` (4, 4), rigid, maps those to the scan's own LPS millimetres.
    """

    array: NDArray[np.float32]
    affine: NDArray[np.float64]
    template_to_source: NDArray[np.float64]
    quality: Quality

    def save(self, path: Path) -> None:
        """Write the scan to an uncompressed .npz file without pickled objects."""
        with path.open("wb") as file:
            np.savez(
                file,
                array=self.array,
                affine=self.affine,
                template_to_source=self.template_to_source,
                quality=np.frombuffer(json.dumps(asdict(self.quality), sort_keys=True).encode(), dtype=np.uint8),
            )

    @classmethod
    def load(cls, path: Path) -> Preprocessed:
        """Read a scan written by `save`.

        Raises:
            OSError: if the file cannot be read.
            ValueError: if it holds pickled objects.
        """
        with np.load(path, allow_pickle=False) as arrays:
            quality = json.loads(arrays["quality"].tobytes())
            flags = tuple(QualityFlag(**each) for each in quality.pop("flags"))
            return cls(
                array=arrays["array"],
                affine=arrays["affine"],
                template_to_source=arrays["template_to_source"],
                quality=Quality(**quality, flags=flags),
            )

"""Draw what registration and N4 leave of a scan from what was measured on phantoms sent through the whole way.

Most of what registration leaves is the patient's own and the same at every visit: the rigid part of an anatomy that is
not the template's, which is known, and a rest. Only the last part differs between visits. Both rests are drawn by a
smoothed bootstrap of the measured rows, which keeps tails and what goes together; the rows are too few to fit tails to.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

TABLE = Path(__file__).with_name("residuals.json")
_JITTER = 0.25  # of the SD between rows: fills the gaps between them, and adds 3 % to the SD


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class ResidualTable:
    """Measured rows. A pose is rotation (degrees about x, y, z) and translation (mm) of the head's centre."""

    patients: NDArray[np.float64]  # (P, 6): mean pose of a patient's visits, less what the anatomy explains
    visits: NDArray[np.float64]  # (P, 6): a visit's deviation from its patient's own pose; either sign
    bias_thick: NDArray[np.float64]  # (N, 9): coefficients of `scanner.bias_terms`
    bias_volumetric: NDArray[np.float64]  # (M, 9)

    def patient_pose(self, rng: np.random.Generator) -> NDArray[np.float64]:
        """Draw what registration leaves at every visit of a patient, beside the rigid part of the anatomy (6,)."""
        return _bootstrap(self.patients, rng, rng.standard_normal(6))

    def visit_pose(self, rng: np.random.Generator, jitter: NDArray[np.float64]) -> NDArray[np.float64]:
        """Draw what one visit's pose (6,) differs from its patient's; `jitter` (6,) is standard normal."""
        return float(rng.choice([-1.0, 1.0])) * _bootstrap(self.visits, rng, jitter)

    def bias(self, rng: np.random.Generator, *, volumetric: bool) -> NDArray[np.float32]:
        """Draw the coefficients (9,) of the shading that N4 leaves of a 3D or a 2D acquisition."""
        rows = self.bias_volumetric if volumetric else self.bias_thick
        return _bootstrap(rows, rng, rng.standard_normal(9)).astype(np.float32)


def _bootstrap(rows: NDArray[np.float64], rng: np.random.Generator, jitter: NDArray[np.float64]) -> NDArray[np.float64]:
    """Draw one of the rows (N, D) and move it a little."""
    return np.asarray(rows[int(rng.integers(len(rows)))] + _JITTER * rows.std(0) * jitter)


@lru_cache(maxsize=1)
def residual_table(path: Path = TABLE) -> ResidualTable:
    """Load a table that `python -m inference phantom-residuals` has written.

    Raises:
        OSError: if there is none.
        ValueError: if no patient in it has two visits.
    """
    rows = json.loads(path.read_text(encoding="utf-8"))["rows"]
    poses: dict[int, list[NDArray[np.float64]]] = {}
    for row in rows:
        poses.setdefault(row["seed"], []).append(
            np.array([*row["rotation_deg"], *row["translation_mm"]]) - row["anatomy"]
        )
    pairs = np.array([each for each in poses.values() if len(each) == 2])  # (P, 2, 6)
    if not len(pairs):
        raise ValueError(f"{path}: expected patients with two visits, found none")
    return ResidualTable(
        patients=np.array([np.mean(each, axis=0) for each in poses.values()]),
        # The difference of two visits has twice the variance of one visit's deviation.
        visits=(pairs[:, 0] - pairs[:, 1]) / np.sqrt(2),
        bias_thick=np.array([row["bias"] for row in rows if not row["volumetric"]]),
        bias_volumetric=np.array([row["bias"] for row in rows if row["volumetric"]]),
    )

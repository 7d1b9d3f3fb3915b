"""What every arm of an experiment answered for every test patient: the one table from which all figures are computed.

Kept apart from the networks, so that an evaluation can be repeated, extended and audited without a single forward pass.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from numpy.typing import NDArray

LENGTHS = (1, 2, 3, 4, 5, 6)
_PER_PATIENT = ("patients", "labels", "sites", "sexes", "ages_years", "n_scans", "mean_gaps_days", "volume_slopes")


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Predictions:
    """One row per patient, at the final landmark (the newest scan), and every prefix beside it.

    `logits[arm]` (seeds, 6, P) answers from the last 1..6 scans, NaN where a patient has fewer; label: `labels`.
    `prefix_logits[arm]` (seeds, 6, P) answers from the first 1..6 of the newest six scans; label: `prefix_labels`
    (6, P), each prefix's own, -1 where nobody knows. Labels are 1, 0, or -1 where follow-up ended too early.
    """

    population: str  # for example "test" or "shifted"
    patients: NDArray[np.str_]  # (P,)
    labels: NDArray[np.int8]  # (P,)
    sites: NDArray[np.str_]  # (P,)
    sexes: NDArray[np.str_]  # (P,)
    ages_years: NDArray[np.float64]  # (P,)
    n_scans: NDArray[np.int64]  # (P,), of at most six
    mean_gaps_days: NDArray[np.float64]  # (P,), NaN with one scan
    volume_slopes: NDArray[np.float64]  # (P,), bright voxels: slope of their log per year, NaN with one scan
    logits: Mapping[str, NDArray[np.float64]]
    prefix_logits: Mapping[str, NDArray[np.float64]]
    prefix_labels: NDArray[np.int8]  # (6, P)
    networks: Mapping[str, tuple[str, ...]] = field(default_factory=dict)  # arm -> digests of the files that answered

    def save(self, path: Path) -> None:
        """Write the table to an uncompressed .npz without pickled objects."""
        arrays: dict[str, Any] = {name: getattr(self, name) for name in _PER_PATIENT}
        arrays |= {f"logits/{arm}": values for arm, values in self.logits.items()}
        arrays |= {f"prefix/{arm}": values for arm, values in self.prefix_logits.items()}
        told = {"population": self.population, "networks": {arm: list(each) for arm, each in self.networks.items()}}
        header = np.frombuffer(json.dumps(told).encode(), dtype=np.uint8)
        np.savez(path, header=header, prefix_labels=self.prefix_labels, **arrays)

    @classmethod
    def load(cls, path: Path) -> Predictions:
        """Read a table written by `save`.

        Raises:
            OSError: if the file cannot be read.
            ValueError, KeyError: if it is no such table.
        """
        with np.load(path, allow_pickle=False) as arrays:
            told = json.loads(arrays["header"].tobytes())
            return cls(
                population=told["population"],
                networks={arm: tuple(each) for arm, each in told.get("networks", {}).items()},
                prefix_labels=arrays["prefix_labels"],
                logits=_under(arrays, "logits/"),
                prefix_logits=_under(arrays, "prefix/"),
                **{name: arrays[name] for name in _PER_PATIENT},
            )


def _under(arrays: Mapping[str, NDArray[np.float64]], prefix: str) -> dict[str, NDArray[np.float64]]:
    return {name.removeprefix(prefix): arrays[name] for name in arrays if name.startswith(prefix)}

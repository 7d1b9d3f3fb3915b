"""Phantom patients in the model's space, rendered once and kept on disk for training.

A cohort is a folder: `volumes.u8` (all scans one after another, 8 bits, patients in the order of their seeds) and
`index.npz` (where each patient starts, days, labels, latent growth). The same seeds give the same bytes.
"""

from __future__ import annotations

import multiprocessing
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from inference.phantom import make_patient, render_model_space

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

CENSORED = -1
MAX_SCANS = 6  # of a patient, the newest: what the network reads
_VOLUMES, _INDEX = "volumes.u8", "index.npz"


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Cohort:
    """Scans (S, Z, Y, X) of P patients; patient p owns scans `first[p]` to `first[p + 1] - 1`, oldest first.

    `labels` (P,) is 1 for an event within the horizon after the last scan, 0 for none, -1 where follow-up is too short.
    """

    volumes: NDArray[np.uint8]
    first: NDArray[np.int64]  # (P + 1,)
    days: NDArray[np.int64]  # (S,), from the last scan, so <= 0
    labels: NDArray[np.int8]  # (P,)
    seeds: NDArray[np.int64]  # (P,)

    def __len__(self) -> int:
        """Return the number of patients."""
        return len(self.labels)

    def scans(self, patient: int) -> range:
        """Return the indices of a patient's scans."""
        return range(int(self.first[patient]), int(self.first[patient + 1]))

    def head(self, patients: int) -> Cohort:
        """Return the first patients only."""
        count = min(patients, len(self))
        scans = int(self.first[count])
        return Cohort(
            volumes=self.volumes[:scans],
            first=self.first[: count + 1],
            days=self.days[:scans],
            labels=self.labels[:count],
            seeds=self.seeds[:count],
        )

    def labelled(self) -> NDArray[np.int64]:
        """Return the patients whose label is known."""
        return np.flatnonzero(self.labels != CENSORED)


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class _Rendered:
    volumes: NDArray[np.uint8]  # (T, Z, Y, X)
    days: tuple[int, ...]
    label: int


def render_cohort(
    folder: Path,
    seeds: Sequence[int],
    *,
    shape: tuple[int, int, int],
    n_visits: int | None = None,
    workers: int = 2,
    advance: Callable[[], None] = lambda: None,
) -> Cohort:
    """Render the patients of `seeds` into `folder` and open it; `advance` is called after each patient."""
    folder.mkdir(parents=True, exist_ok=True)
    rendered: list[tuple[tuple[int, ...], int]] = []
    with (folder / _VOLUMES).open("wb") as file, multiprocessing.get_context("spawn").Pool(workers) as pool:
        for each in pool.imap(partial(_render, shape=shape, n_visits=n_visits), seeds, chunksize=4):
            file.write(each.volumes.tobytes())
            rendered.append((each.days, each.label))
            advance()
    np.savez(
        folder / _INDEX,
        shape=np.array(shape),
        first=np.cumsum([0, *(len(days) for days, _ in rendered)]),
        days=np.array([day for days, _ in rendered for day in days], dtype=np.int64),
        labels=np.array([label for _, label in rendered], dtype=np.int8),
        seeds=np.array(seeds, dtype=np.int64),
    )
    return open_cohort(folder)


def open_cohort(folder: Path) -> Cohort:
    """Open a rendered cohort; volumes stay on disk until they are read.

    Raises:
        OSError: if a file is missing.
        ValueError: if the two files do not belong together.
    """
    with np.load(folder / _INDEX, allow_pickle=False) as index:
        shape = (len(index["days"]), *(int(size) for size in index["shape"]))
        return Cohort(
            volumes=np.memmap(folder / _VOLUMES, dtype=np.uint8, mode="r", shape=shape),
            first=index["first"],
            days=index["days"],
            labels=index["labels"],
            seeds=index["seeds"],
        )


def _render(seed: int, *, shape: tuple[int, int, int], n_visits: int | None) -> _Rendered:
    """Render the last scans of one patient, FLAIR in the model's space, 0..1 as 8 bits."""
    patient = make_patient(seed, n_visits=n_visits)
    first = max(0, len(patient.visits) - MAX_SCANS)
    volumes = [render_model_space(patient, visit, shape=shape) for visit in range(first, len(patient.visits))]
    label = patient.history.label
    return _Rendered(
        volumes=np.rint(np.stack(volumes) * 255).astype(np.uint8),
        days=patient.history.visit_days[first:],
        label=CENSORED if label is None else int(label),
    )

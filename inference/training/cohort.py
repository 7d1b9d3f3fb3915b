"""The scans of many patients in the model's space, with what was known of each patient afterwards.

A cohort is a folder: `volumes.bin` (all scans one after another, patients in order, oldest scan first) and `index.npz`
(everything else). Phantoms are kept as 8 bits; scans that came through preprocessing as the float32 that the node
itself computes, so that training sees to the bit what serving sees. Volumes stay on disk until they are read.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from inference.training.labels import label_at

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

UNKNOWN = -1
MAX_SCANS = 6  # of a patient, the newest: what the network reads
_VOLUMES, _INDEX = "volumes.bin", "index.npz"
_PER_SCAN = ("volumes", "days", "first")  # the others are told per patient


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class PatientScans:
    """One patient on its way into a cohort: scans (T, Z, Y, X) oldest first; days count from the newest of them."""

    patient: str
    volumes: NDArray[np.uint8] | NDArray[np.float32]
    days: tuple[int, ...]  # ascending, the last is 0
    event_day: int | None  # None: no event was observed
    follow_up_day: int  # last day known to be free of an event, or the event's day
    site: str = ""
    sex: str = ""
    age_years: float = float("nan")  # at the newest scan


class SomeScans:
    """Some scans (S, Z, Y, X) of a larger array, in an order of their own; read when they are asked for.

    A part of a hospital's patients is spread over a file that no memory holds: indexing copies what is asked for alone.
    """

    def __init__(self, whole: Volumes, places: NDArray[np.int64]) -> None:
        """Keep which scans of the whole these are."""
        self._whole, self._places = whole, places
        self.shape: tuple[int, ...] = (len(places), *whole.shape[1:])
        self.dtype: np.dtype[Any] = whole.dtype

    def __len__(self) -> int:
        """Return the number of scans."""
        return len(self._places)

    def __getitem__(self, which: Any) -> Any:
        """Return scans as numpy would: one of them, or some by slice or places."""
        return self._whole[self._places[which]]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Any:  # noqa: FBT001 - numpy's protocol
        """Read all of them."""
        return np.asarray(self._whole[self._places], dtype=dtype)


Volumes: TypeAlias = NDArray[np.uint8] | NDArray[np.float32] | SomeScans


@dataclass(frozen=True, eq=False, kw_only=True)
class Cohort:
    """Scans (S, Z, Y, X) of P patients; patient p owns scans `first[p]` to `first[p + 1] - 1`, oldest first.

    Volumes lie in 0..1 (float32) or 0..255 (uint8). Days count from the patient's newest scan, so those of scans are
    at most 0; `event_days` is NaN where no event was observed.
    """

    volumes: Volumes
    first: NDArray[np.int64]  # (P + 1,)
    days: NDArray[np.int64]  # (S,)
    event_days: NDArray[np.float64]  # (P,)
    follow_up_days: NDArray[np.float64]  # (P,)
    patients: NDArray[np.str_]  # (P,)
    sites: NDArray[np.str_]  # (P,)
    sexes: NDArray[np.str_]  # (P,)
    ages_years: NDArray[np.float64]  # (P,), at the newest scan; NaN where unknown
    synthetic: bool = False  # phantoms: no figure about them says anything about a human

    def __len__(self) -> int:
        """Return the number of patients."""
        return len(self.patients)

    @cached_property
    def labels(self) -> NDArray[np.int8]:
        """Return (P,): 1 for an event within the horizon after the newest scan, 0 for none, -1 where nobody knows."""
        return np.array([self.label(patient, 0) for patient in range(len(self))], dtype=np.int8)

    def label(self, patient: int, day: int) -> int:
        """Return what the label would be if the scan of `day` were the newest: 1, 0, or -1 where nobody knows."""
        event = float(self.event_days[patient])
        known = label_at(
            day,
            event_day=None if np.isnan(event) else event,
            follow_up_day=float(self.follow_up_days[patient]),
        )
        return UNKNOWN if known is None else int(known)

    def labelled(self) -> NDArray[np.int64]:
        """Return the patients whose label at the newest scan is known."""
        return np.flatnonzero(self.labels != UNKNOWN)

    def scans(self, patient: int) -> range:
        """Return the indices of a patient's scans, oldest first."""
        return range(int(self.first[patient]), int(self.first[patient + 1]))

    def n_scans(self) -> NDArray[np.int64]:
        """Return (P,): how many scans each patient has."""
        return np.diff(self.first)

    def head(self, patients: int) -> Cohort:
        """Return the first patients only."""
        return self.subset(np.arange(min(patients, len(self))))

    def subset(self, patients: NDArray[np.int64]) -> Cohort:
        """Return these patients only, by their places, in this order; no volume is read."""
        scans = np.array([scan for patient in patients for scan in self.scans(int(patient))], dtype=np.int64)
        volumes: Volumes = SomeScans(self.volumes, scans)
        if isinstance(self.volumes, np.ndarray) and len(scans) and bool((np.diff(scans) == 1).all()):
            volumes = self.volumes[scans[0] : scans[-1] + 1]
        per_patient = {name: getattr(self, name)[patients] for name in _columns() if name not in _PER_SCAN}
        return replace(
            self,
            volumes=volumes,
            days=self.days[scans],
            first=np.concatenate([[0], np.cumsum(self.n_scans()[patients])]),
            **per_patient,
        )


def write_cohort(folder: Path, patients: Iterable[PatientScans], *, synthetic: bool = False) -> Cohort:
    """Write patients one after another and open the result; the index comes last, so a torn folder has none.

    Raises:
        ValueError: if there is no patient, or scans differ in shape or type.
        OSError: if the disk says no.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / _INDEX).unlink(missing_ok=True)
    seen: list[PatientScans] = []
    with (folder / _VOLUMES).open("wb") as file:
        for each in patients:
            file.write(np.ascontiguousarray(each.volumes).tobytes())
            seen.append(_without_volumes(each, seen))
    if not seen:
        raise ValueError(f"{folder}: expected at least one patient, found none")
    np.savez(
        folder / _INDEX,
        shape=np.array(seen[0].volumes.shape[1:]),
        dtype=np.array(seen[0].volumes.dtype.name),
        synthetic=np.array(synthetic),
        first=np.cumsum([0, *(len(each.days) for each in seen)]),
        days=np.array([day for each in seen for day in each.days], dtype=np.int64),
        event_days=np.array([np.nan if each.event_day is None else each.event_day for each in seen], dtype=np.float64),
        follow_up_days=np.array([each.follow_up_day for each in seen], dtype=np.float64),
        patients=np.array([each.patient for each in seen], dtype=np.str_),
        sites=np.array([each.site for each in seen], dtype=np.str_),
        sexes=np.array([each.sex for each in seen], dtype=np.str_),
        ages_years=np.array([each.age_years for each in seen], dtype=np.float64),
    )
    return open_cohort(folder)


def open_cohort(folder: Path) -> Cohort:
    """Open a written cohort; volumes stay on disk until they are read.

    Raises:
        OSError: if a file is missing.
        ValueError: if the two files do not belong together.
    """
    with np.load(folder / _INDEX, allow_pickle=False) as index:
        shape = (len(index["days"]), *(int(size) for size in index["shape"]))
        dtype = np.dtype(str(index["dtype"]))
        if (size := (folder / _VOLUMES).stat().st_size) != (expected := int(np.prod(shape)) * dtype.itemsize):
            raise ValueError(f"{folder / _VOLUMES}: expected {expected} bytes, found {size}")
        columns = {name: index[name] for name in _columns() if name != "volumes"}
        volumes = np.memmap(folder / _VOLUMES, dtype=dtype, mode="r", shape=shape)
        return Cohort(volumes=volumes, **columns, synthetic=bool(index["synthetic"]))


def is_written(folder: Path) -> bool:
    """Return whether a whole cohort lies in the folder."""
    return (folder / _INDEX).is_file()


def _columns() -> tuple[str, ...]:
    """Return the names of everything that is told per scan or per patient."""
    return tuple(each.name for each in fields(Cohort) if each.name != "synthetic")


def _without_volumes(each: PatientScans, seen: list[PatientScans]) -> PatientScans:
    """Return the patient without its voxels, after a look at whether it fits the others."""
    like = seen[0].volumes if seen else each.volumes
    expected = (len(each.days), *like.shape[1:]), like.dtype
    if (found := (each.volumes.shape, each.volumes.dtype)) != expected:
        raise ValueError(f"cohort, patient number {len(seen) + 1}: expected scans {expected}, found {found}")
    columns = {each_field.name: getattr(each, each_field.name) for each_field in fields(each)}
    return PatientScans(**{**columns, "volumes": each.volumes[:0]})

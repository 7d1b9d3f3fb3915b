"""Phantom patients rendered into a cohort, in the model's space. The same seeds and dials give the same bytes."""

from __future__ import annotations

import multiprocessing
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from inference.phantom import INTERNAL, Dials, Population, make_patient, render_model_space
from inference.training.cohort import MAX_SCANS, Cohort, PatientScans, write_cohort

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from inference.phantom import PhantomPatient

_FEW = 32  # patients: to start a process takes as long


@dataclass(frozen=True, slots=True, kw_only=True)
class Drawing:
    """Who is drawn beside their seeds, and on which grid (Z, Y, X); `n_visits` fixes the number of visits."""

    shape: tuple[int, int, int]
    dials: Dials = field(default_factory=Dials)
    population: Population = INTERNAL
    n_visits: int | None = None


def render_cohort(
    folder: Path,
    seeds: Sequence[int],
    drawing: Drawing,
    *,
    workers: int = 2,
    advance: Callable[[], None] = lambda: None,
) -> Cohort:
    """Render the last scans of the patients of `seeds` into `folder`; `advance` is called after each patient."""
    patients = drawn(partial(rendered_patient, drawing), seeds, workers=workers, advance=advance)
    return write_cohort(folder, patients, synthetic=True)


def drawn(
    draw: Callable[[int], PatientScans], seeds: Sequence[int], *, workers: int, advance: Callable[[], None]
) -> Iterator[PatientScans]:
    """Yield the patients of `seeds` in their order, drawn by several processes, or here where they are few."""
    if len(seeds) <= _FEW or workers == 1:
        for seed in seeds:
            advance()
            yield draw(seed)
        return
    with multiprocessing.get_context("spawn").Pool(workers) as pool:
        for each in pool.imap(draw, seeds, chunksize=4):
            advance()
            yield each


def rendered_patient(drawing: Drawing, seed: int) -> PatientScans:
    """Render the last scans of one patient, FLAIR in the model's space, 0..1 as 8 bits."""
    patient = make_patient(seed, dials=drawing.dials, population=drawing.population, n_visits=drawing.n_visits)
    volumes = [render_model_space(patient, visit, shape=drawing.shape) for visit in last_visits(patient)]
    return in_cohort(patient, np.stack(volumes))


def last_visits(patient: PhantomPatient) -> range:
    """Return the visits of a patient that a cohort keeps, oldest first."""
    return range(max(0, len(patient.visits) - MAX_SCANS), len(patient.visits))


def in_cohort(patient: PhantomPatient, volumes: NDArray[np.float32]) -> PatientScans:
    """Return a phantom on its way into a cohort, with the volumes (T, Z, Y, X) of its last visits as 8 bits."""
    newest = patient.visits[-1]
    return PatientScans(
        patient=patient.patient_id,
        volumes=np.rint(volumes * 255).astype(np.uint8),
        days=patient.history.visit_days[last_visits(patient).start :],
        event_day=patient.history.event_day,
        follow_up_day=patient.history.last_follow_up_day,
        site=newest.scanner.institution,
        sex=patient.sex,
        age_years=(newest.acquired - patient.born).days / 365.25,
    )

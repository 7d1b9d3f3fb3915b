"""Phantom patients rendered into a cohort, in the model's space. The same seeds and dials give the same bytes."""

from __future__ import annotations

import multiprocessing
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from inference.phantom import INTERNAL, Dials, make_patient, render_model_space
from inference.training.cohort import MAX_SCANS, Cohort, PatientScans, write_cohort

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from inference.phantom import PhantomPatient, Population


def render_cohort(
    folder: Path,
    seeds: Sequence[int],
    *,
    shape: tuple[int, int, int],
    dials: Dials | None = None,
    n_visits: int | None = None,
    workers: int = 2,
    advance: Callable[[], None] = lambda: None,
) -> Cohort:
    """Render the last scans of the patients of `seeds` into `folder`; `advance` is called after each patient."""
    draw = partial(rendered_patient, shape=shape, dials=dials or Dials(), n_visits=n_visits)
    return write_cohort(folder, drawn(draw, seeds, workers=workers, advance=advance))


def render_population(
    folder: Path,
    seeds: Sequence[int],
    *,
    population: Population,
    shape: tuple[int, int, int],
    workers: int = 2,
    advance: Callable[[], None] = lambda: None,
) -> Cohort:
    """Render patients of another population than the one that is trained on, as `render_cohort` does."""
    draw = partial(rendered_patient, shape=shape, dials=Dials(), n_visits=None, population=population)
    return write_cohort(folder, drawn(draw, seeds, workers=workers, advance=advance))


def drawn(
    draw: Callable[[int], PatientScans], seeds: Sequence[int], *, workers: int, advance: Callable[[], None]
) -> Iterator[PatientScans]:
    """Yield the patients of `seeds` in their order, drawn by several processes."""
    with multiprocessing.get_context("spawn").Pool(workers) as pool:
        for each in pool.imap(draw, seeds, chunksize=4):
            advance()
            yield each


def rendered_patient(
    seed: int,
    *,
    shape: tuple[int, int, int],
    dials: Dials,
    n_visits: int | None,
    population: Population = INTERNAL,
) -> PatientScans:
    """Render the last scans of one patient, FLAIR in the model's space, 0..1 as 8 bits."""
    patient = make_patient(seed, dials=dials, n_visits=n_visits, population=population)
    return in_cohort(
        patient, np.stack([render_model_space(patient, visit, shape=shape) for visit in last_visits(patient)])
    )


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

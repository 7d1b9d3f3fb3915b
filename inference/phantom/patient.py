"""One synthetic patient: demographics, visits, event, and everything that its images are rendered from."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, timedelta
from typing import TYPE_CHECKING

import numpy as np

from inference.phantom.anatomy import Anatomy, draw_anatomy, rigid_part
from inference.phantom.latents import Dials, History, draw_history
from inference.phantom.lesion import Lesion, Texture, draw_lesion, draw_texture
from inference.phantom.population import INTERNAL, Population
from inference.phantom.residuals import residual_table
from inference.phantom.scanner import Nuisance, Scanner, draw_nuisance, scanner

if TYPE_CHECKING:
    from numpy.typing import NDArray

_FIRST_LAST_VISIT = date(2018, 1, 1)
_UPGRADE_DATE = date(2020, 1, 1)
_DISEASE_STREAM, _NUISANCE_STREAM, _SITE_STREAM, _TEXTURE_STREAM, _RESIDUAL_STREAM = 1, 2, 3, 5, 6


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Visit:
    """One scan date, the lesion's size on it, and the machine that saw it."""

    acquired: date
    log_volume: float  # natural log of millilitres, wobble included: what the image shows
    years_to_last_visit: float  # <= 0
    years_since_surgery: float
    scanner: Scanner
    nuisance: Nuisance

    @property
    def volume_ml(self) -> float:
        """Return the lesion's volume in millilitres."""
        return float(np.exp(self.log_volume))


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class PhantomPatient:
    """A patient that never was. `label`: event within the horizon of the last visit, None where censored before."""

    seed: int
    nuisance_seed: int
    patient_id: str
    sex: str
    born: date
    surgery: date
    visits: tuple[Visit, ...]
    event: date | None
    last_follow_up: date
    label: bool | None
    history: History
    dials: Dials
    population: Population
    anatomy: Anatomy
    lesion: Lesion
    texture: Texture


def make_patient(
    seed: int,
    *,
    dials: Dials | None = None,
    population: Population = INTERNAL,
    nuisance_seed: int | None = None,
    n_visits: int | None = None,
    last_visit: date | None = None,
) -> PhantomPatient:
    """Make the patient of a seed; equal arguments give an equal patient on any machine.

    Args:
        seed: names the patient and its disease.
        dials: what the disease does; the defaults are the study's.
        population: who is scanned, and with what.
        nuisance_seed: scanners, pose and noise; `seed` where not given. Changes neither dates nor label.
        n_visits: fixes the number of visits.
        last_visit: shifts all dates so that the last visit falls here.

    Raises:
        ValueError: if the seed is negative or above 999999, or `n_visits` below 1.
    """
    if not 0 <= seed <= 999_999:
        msg = f"phantom patient: expected a seed from 0 to 999999, found {seed}"
        raise ValueError(msg)
    dials = dials or Dials()
    noise_seed = seed if nuisance_seed is None else nuisance_seed
    disease = np.random.default_rng([seed, _DISEASE_STREAM])
    history = draw_history(np.random.default_rng([seed, 0]), dials, n_visits=n_visits)
    lesion = draw_lesion(disease, population.head)
    anatomy = draw_anatomy(disease, population)
    texture = draw_texture(np.random.default_rng([seed, _TEXTURE_STREAM]), population)

    last = last_visit or _FIRST_LAST_VISIT + timedelta(days=int(disease.integers(0, 2000)))
    recovery_days = int(np.clip(60 * np.exp(0.4 * disease.standard_normal()), 14, 240))
    surgery = last + timedelta(days=history.visit_days[0] - recovery_days)
    age_days = int(disease.uniform(6, 65) * 365.25)
    return PhantomPatient(
        seed=seed,
        nuisance_seed=noise_seed,
        patient_id=patient_id(seed),
        sex=str(disease.choice(["F", "M"])),
        born=surgery - timedelta(days=age_days),
        surgery=surgery,
        visits=_visits(history, (dials, population), (last, surgery), rigid_part(anatomy), noise_seed),
        event=None if history.event_day is None else last + timedelta(days=history.event_day),
        last_follow_up=last + timedelta(days=history.last_follow_up_day),
        label=history.label,
        history=history,
        dials=dials,
        population=population,
        anatomy=anatomy,
        lesion=lesion,
        texture=texture,
    )


def patient_id(seed: int) -> str:
    """Return the PatientID of a seed's phantom."""
    return f"PHANTOM-{seed:06d}"


def _visits(
    history: History,
    law: tuple[Dials, Population],
    dates: tuple[date, date],
    anatomy_pose: NDArray[np.float64],
    noise_seed: int,
) -> tuple[Visit, ...]:
    """Give each visit its date, machine and nuisance; a patient mostly stays at one site, machines change."""
    dials, acquisition = law[0], law[1].acquisition
    last, surgery = dates
    site_rng = np.random.default_rng([noise_seed, _SITE_STREAM])
    tilt = dials.site_log_odds_per_z * history.z
    weights = np.exp(np.array([tilt, 0.0, -tilt]))
    site = int(site_rng.choice(3, p=weights / weights.sum()))
    pose = anatomy_pose + residual_table().patient_pose(np.random.default_rng([noise_seed, _RESIDUAL_STREAM]))
    visits = []
    for number, (day, log_volume) in enumerate(zip(history.visit_days, history.log_volumes, strict=True)):
        rng = np.random.default_rng([noise_seed, _NUISANCE_STREAM, number])
        acquired = last + timedelta(days=day)
        moved, high_field = rng.uniform() < 0.2, bool(rng.uniform() < 0.5)
        here = int(rng.integers(3)) if moved else site
        if dials.scanner_upgrade:
            high_field = acquired >= _UPGRADE_DATE
        visits.append(
            Visit(
                acquired=acquired,
                log_volume=log_volume,
                years_to_last_visit=day / 365.25,
                years_since_surgery=(acquired - surgery).days / 365.25,
                scanner=scanner(acquisition.vendors[here], high_field=high_field, site=acquisition.first_site + here),
                nuisance=draw_nuisance(rng, acquisition, pose),
            )
        )
    return tuple(visits)

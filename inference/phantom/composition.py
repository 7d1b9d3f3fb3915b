"""What a visit's head is made of at a point, and how brightly that shines in a sequence. No grid, no scanner."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from inference.phantom import lesion as disease
from inference.phantom.anatomy import healthy_fractions
from inference.phantom.grid import HEAD_CENTRE_MM
from inference.phantom.signal import Sequence, Tissue, tissue_signal

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from inference.phantom.patient import PhantomPatient, Visit
    from inference.phantom.tissue import TissueMaps

BRAIN = (
    Tissue.GREY,
    Tissue.WHITE,
    Tissue.CSF,
    Tissue.TUMOUR,
    Tissue.ENHANCING,
    Tissue.OEDEMA,
    Tissue.GLIOSIS,
    Tissue.CAVITY,
    Tissue.MIXED,
    Tissue.NECROSIS,
)
LESION = (Tissue.TUMOUR, Tissue.ENHANCING, Tissue.MIXED, Tissue.NECROSIS)


def ungrow(patient: PhantomPatient, visit: Visit, points_mm: NDArray[np.float32]) -> NDArray[np.float32]:
    """Take points (3, N) of the unmoved head to its size at the last visit."""
    centre = HEAD_CENTRE_MM[:, None].astype(np.float32)
    growth = np.float32(1 + patient.dials.brain_growth_per_year * visit.years_to_last_visit)
    return np.asarray((points_mm - centre) / growth + centre, dtype=np.float32)


def fractions_at(
    patient: PhantomPatient, visit: Visit, template_points: NDArray[np.float32], maps: TissueMaps, *, edge_mm: float
) -> dict[Tissue, NDArray[np.float32]]:
    """Return every tissue's share at template points (3, N)."""
    cavity_mm = patient.lesion.cavity_radius_at(visit.years_since_surgery)
    radius_mm = disease.lesion_radius_mm(
        patient.lesion, visit.volume_ml, cavity_radius_mm=cavity_mm, head=patient.population.head
    )
    fractions = disease.add_lesion(
        healthy_fractions(patient.anatomy, maps, template_points),
        patient.lesion,
        template_points,
        radius_mm=radius_mm,
        cavity_radius_mm=cavity_mm,
        edge_mm=edge_mm,
    )
    return disease.roughen(fractions, patient.texture, template_points)


def share(fractions: dict[Tissue, NDArray[np.float32]], tissues: tuple[Tissue, ...]) -> NDArray[np.float32]:
    """Return the share (N,) that some tissues take together."""
    total = np.zeros_like(fractions[Tissue.WHITE])
    for each in tissues:
        if each in fractions:
            total += fractions[each]
    return total


def mix(fractions: dict[Tissue, NDArray[np.float32]], sequence: Sequence, field_t: float) -> NDArray[np.float32]:
    """Add the tissues' signals, white matter = 1."""
    white = tissue_signal(Tissue.WHITE, sequence, field_t=field_t)
    total = np.zeros_like(fractions[Tissue.WHITE])
    for tissue, share in fractions.items():
        total += np.float32(tissue_signal(tissue, sequence, field_t=field_t) / white) * share
    return total


def noise_seed(visit: Visit, role: str) -> int:
    """Return a seed that differs between the contrasts of a visit."""
    return visit.nuisance.noise_seed * 4 + ("T1", "T1c", "T2", "FLAIR").index(role)

"""Who is scanned, and with what: the population that models are trained on, and one shifted on purpose.

The shifted population is a test only: nothing is trained, chosen or calibrated on it. Its disease has the same law, so
its Bayes ceilings are the same; what differs is scanners, protocol, noise, slices, sites, texture and contrast of the
tumour, and the anatomy. With `head` the anatomy is a real one.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from inference.phantom.scanner import Acquisition
from inference.phantom.signal import sequence_for

if TYPE_CHECKING:
    from pathlib import Path

    from inference.phantom.signal import Sequence


@dataclass(frozen=True, slots=True, kw_only=True)
class Population:
    """What patients of a population share."""

    name: str = "internal"
    acquisition: Acquisition = field(default_factory=Acquisition)
    displacement_sd_mm: float = 2.5
    ventricle_expansion: float = 0.0  # share by which tissue beside the ventricles is pushed outwards
    atrophy: float = 0.0  # share of the cortex at the surface that fluid has replaced
    loose_share: tuple[float, float] = (0.0, 0.0)  # of the tumour: loosely infiltrated, hence of weaker contrast
    necrotic_share: tuple[float, float] = (0.0, 0.0)  # of the enhancing core
    head: Path | None = None  # folder of a real T1 that phantoms are drawn on; None: the template

    def sequence(self, role: str, *, volumetric: bool, field_t: float) -> Sequence:
        """Return this population's protocol for a role."""
        usual = sequence_for(role, volumetric=volumetric, field_t=field_t)
        if self.acquisition.echo_time_factor == 1.0 and self.acquisition.inversion_time_factor == 1.0:
            return usual
        return replace(
            usual,
            te_ms=round(usual.te_ms * self.acquisition.echo_time_factor, 1),
            ti_ms=usual.ti_ms and float(round(usual.ti_ms * self.acquisition.inversion_time_factor)),
        )


INTERNAL = Population()
SHIFTED = Population(
    name="shifted",
    acquisition=Acquisition(
        vendors=("hitachi", "hitachi", "ge"),
        first_site=3,
        noise_fraction=(0.06, 0.09),
        thick_slices_mm=(6.0, 7.0),
        volumetric_share=0.2,
        echo_time_factor=1.2,
        inversion_time_factor=0.95,
    ),
    displacement_sd_mm=4.0,
    ventricle_expansion=0.35,
    atrophy=0.3,
    loose_share=(0.3, 0.6),
    necrotic_share=(0.3, 0.7),
)


def on_real_head(folder: Path) -> Population:
    """Return the shifted population on the anatomy of the real head in a folder (one T1-weighted NIfTI file)."""
    return replace(SHIFTED, name="shifted, real head", head=folder)

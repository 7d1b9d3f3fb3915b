"""Tell how bright a tissue is: T1, T2 and proton density per tissue and field strength, and the sequences' equations.

Times in milliseconds. Signals are relative to the fully relaxed signal of water.
Source: relaxation times rounded from Stanisz et al. 2005 (10.1002/mrm.20605) and Bojorquez et al. 2017
(10.1016/j.mri.2016.08.021); tumour values are ours, chosen inside published ranges.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum

GADOLINIUM_R1_PER_MM_S = 4.5  # relaxivity of a macrocyclic agent, per millimole and second
INVERSION_EFFICIENCY = 0.9  # of the magnetisation-prepared gradient echo, readout saturation included


class Tissue(StrEnum):
    """What a voxel may be made of."""

    GREY = "grey matter"
    WHITE = "white matter"
    CSF = "cerebrospinal fluid"
    BONE = "cortical bone"
    MARROW = "diploe"
    FAT = "subcutaneous fat"
    SKIN = "skin and muscle"
    VEIN = "venous sinus"
    TUMOUR = "non-enhancing tumour"
    ENHANCING = "enhancing tumour"
    OEDEMA = "oedema"
    GLIOSIS = "gliosis"
    CAVITY = "resection cavity fluid"
    MIXED = "loosely infiltrated tissue"
    NECROSIS = "necrosis"


@dataclass(frozen=True, slots=True, kw_only=True)
class Relaxation:
    """MR properties of a tissue: (1.5 T, 3 T) pairs and the gadolinium it takes up, in millimoles per litre."""

    density: float
    t1_ms: tuple[float, float]
    t2_ms: tuple[float, float]
    gadolinium_mm: float = 0.0


TISSUES: dict[Tissue, Relaxation] = {
    Tissue.GREY: Relaxation(density=0.82, t1_ms=(1120, 1450), t2_ms=(95, 92), gadolinium_mm=0.01),
    Tissue.WHITE: Relaxation(density=0.70, t1_ms=(680, 880), t2_ms=(75, 71), gadolinium_mm=0.005),
    Tissue.CSF: Relaxation(density=1.0, t1_ms=(4300, 4300), t2_ms=(1600, 1500)),
    Tissue.BONE: Relaxation(density=0.06, t1_ms=(400, 500), t2_ms=(4, 3)),
    Tissue.MARROW: Relaxation(density=0.45, t1_ms=(420, 520), t2_ms=(55, 50), gadolinium_mm=0.02),
    Tissue.FAT: Relaxation(density=0.70, t1_ms=(290, 370), t2_ms=(85, 80)),
    Tissue.SKIN: Relaxation(density=0.75, t1_ms=(950, 1200), t2_ms=(45, 40), gadolinium_mm=0.1),
    Tissue.VEIN: Relaxation(density=0.25, t1_ms=(1450, 1750), t2_ms=(40, 30), gadolinium_mm=2.5),  # flow void
    Tissue.TUMOUR: Relaxation(density=0.87, t1_ms=(1350, 1650), t2_ms=(175, 170)),
    Tissue.ENHANCING: Relaxation(density=0.86, t1_ms=(1250, 1600), t2_ms=(155, 150), gadolinium_mm=0.55),
    Tissue.OEDEMA: Relaxation(density=0.82, t1_ms=(1200, 1500), t2_ms=(125, 120)),
    Tissue.GLIOSIS: Relaxation(density=0.80, t1_ms=(1150, 1450), t2_ms=(120, 115)),
    Tissue.CAVITY: Relaxation(density=0.98, t1_ms=(3700, 3800), t2_ms=(1000, 900)),
    Tissue.MIXED: Relaxation(density=0.83, t1_ms=(1230, 1530), t2_ms=(125, 118)),
    Tissue.NECROSIS: Relaxation(density=0.93, t1_ms=(2300, 2600), t2_ms=(260, 240)),
}


class Contrast(StrEnum):
    """Which equation forms the image."""

    SPIN_ECHO = "spin echo"
    INVERSION_RECOVERY = "inversion-recovery spin echo"
    PREPARED_GRADIENT_ECHO = "magnetisation-prepared gradient echo"


@dataclass(frozen=True, slots=True, kw_only=True)
class Sequence:
    """What the scanner was told: times in milliseconds; `ti_ms` only with an inversion."""

    contrast: Contrast
    tr_ms: float
    te_ms: float
    ti_ms: float | None = None
    flip_deg: float = 90.0
    gadolinium: bool = False
    echo_train: int = 1


def sequence_for(role: str, *, volumetric: bool, field_t: float) -> Sequence:
    """Return a usual protocol for `T1`, `T1c`, `T2` or `FLAIR`.

    Raises:
        KeyError: if the role is none of the four.
    """
    if role == "FLAIR":
        tr_ms = 5000.0 if volumetric else 9000.0
        return Sequence(
            contrast=Contrast.INVERSION_RECOVERY,
            tr_ms=tr_ms,
            te_ms=125.0 if volumetric else 95.0,
            ti_ms=csf_null_ti_ms(tr_ms),
            flip_deg=120.0 if volumetric else 150.0,
            echo_train=180 if volumetric else 17,
        )
    if role == "T2":
        te_ms = 110.0 if volumetric else 96.0
        return Sequence(
            contrast=Contrast.SPIN_ECHO,
            tr_ms=3200.0 if volumetric else 5200.0,
            te_ms=te_ms,
            flip_deg=120.0 if volumetric else 150.0,
            echo_train=120 if volumetric else 15,
        )
    gadolinium = {"T1": False, "T1c": True}[role]
    if volumetric:
        ti_ms = 900.0 if field_t > 2 else 750.0
        return Sequence(
            contrast=Contrast.PREPARED_GRADIENT_ECHO,
            tr_ms=2200.0,
            te_ms=2.9,
            ti_ms=ti_ms,
            flip_deg=9.0,
            gadolinium=gadolinium,
        )
    return Sequence(contrast=Contrast.SPIN_ECHO, tr_ms=520.0, te_ms=11.0, gadolinium=gadolinium)


def csf_null_ti_ms(tr_ms: float) -> float:
    """Return the inversion time at which cerebrospinal fluid gives no signal for this repetition time."""
    t1_ms = TISSUES[Tissue.CSF].t1_ms[0]
    return round(t1_ms * (math.log(2) - math.log1p(math.exp(-tr_ms / t1_ms))))


def tissue_signal(tissue: Tissue, sequence: Sequence, *, field_t: float) -> float:
    """Return the magnitude signal of a pure voxel of `tissue` at a field strength."""
    properties = TISSUES[tissue]
    t1_ms, t2_ms = _at_field(properties.t1_ms, field_t), _at_field(properties.t2_ms, field_t)
    if sequence.gadolinium:
        rate_per_s = 1000 / t1_ms + GADOLINIUM_R1_PER_MM_S * properties.gadolinium_mm
        t1_ms = 1000 / rate_per_s
    return properties.density * longitudinal(sequence, t1_ms) * math.exp(-sequence.te_ms / t2_ms)


def _at_field(times_ms: tuple[float, float], field_t: float) -> float:
    """Return a relaxation time at a field, given those at 1.5 and 3 tesla.

    Source: T1 grows with a power of the field (Bottomley et al., Med Phys 1984); ours is set by the two known times.
    """
    low, high = times_ms
    if field_t in (1.5, 3.0):
        return high if field_t > 2 else low
    return float(low * (field_t / 1.5) ** math.log2(high / low))


def longitudinal(sequence: Sequence, t1_ms: float) -> float:
    """Return the magnitude of the longitudinal magnetisation at excitation, fully relaxed = 1."""
    recovered = math.exp(-sequence.tr_ms / t1_ms)
    if sequence.ti_ms is None:
        return 1 - recovered
    inverted = math.exp(-sequence.ti_ms / t1_ms)
    if sequence.contrast is Contrast.INVERSION_RECOVERY:
        return abs(1 - 2 * inverted + recovered)
    return abs(1 - 2 * INVERSION_EFFICIENCY * inverted / (1 + recovered))

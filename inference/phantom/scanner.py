"""Scanners and what they do to an image: gain, bias field, noise, thick slices, head pose. Independent of growth.

Every value is drawn from its own random stream, so a patient rendered with another nuisance seed keeps its disease.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from inference.phantom.residuals import residual_table

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True, kw_only=True)
class Scanner:
    """A machine as its headers describe it."""

    vendor: str  # siemens, ge, philips
    manufacturer: str
    model: str
    field_t: float
    station: str
    serial: str
    software: str
    institution: str


_MODELS = {
    "siemens": ("SIEMENS", (("Avanto", 1.5, "syngo MR B17"), ("Skyra", 3.0, "syngo MR E11"))),
    "ge": ("GE MEDICAL SYSTEMS", (("SIGNA HDxt", 1.5, "HD16.0_V02"), ("DISCOVERY MR750", 3.0, "DV26.0_R03"))),
    "philips": ("Philips Medical Systems", (("Achieva", 1.5, "3.2.3"), ("Ingenia", 3.0, "5.3.1"))),
    "hitachi": ("Hitachi Medical Corporation", (("ALTAIRE", 0.7, "V3.1"), ("OASIS", 1.0, "V6.2"))),
}
VENDORS = ("siemens", "ge", "philips")  # of the population that is trained on


def scanner(vendor: str, *, high_field: bool, site: int = 0) -> Scanner:
    """Return the machine of lower (1.5 T) or higher (3 T) field of a vendor at a site; Hitachi's are 0.7 and 1 T.

    Raises:
        ValueError: if the vendor is unknown.
    """
    if vendor not in _MODELS:
        msg = f"phantom scanner: expected a vendor of {', '.join(_MODELS)}, found {vendor!r}"
        raise ValueError(msg)
    manufacturer, models = _MODELS[vendor]
    model, field_t, software = models[int(high_field)]
    return Scanner(
        vendor=vendor,
        manufacturer=manufacturer,
        model=model,
        field_t=field_t,
        station=f"PHANTOMMR{site}{int(high_field)}",
        serial=f"9900{site}{tuple(_MODELS).index(vendor)}{int(high_field)}",
        software=software,
        institution=f"Phantom Hospital {site}",
    )


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Nuisance:
    """How one visit's images differ from perfect ones."""

    gain: float
    bias: NDArray[np.float32]  # (9,) coefficients of a smooth field: x, y, z, x2, y2, z2, xy, yz, zx
    noise_fraction: float  # noise SD relative to white matter
    thick_slice_mm: float  # slice thickness of a 2D acquisition
    volumetric: bool  # 3D acquisition
    rotation_deg: tuple[float, float, float]  # of the head in the scanner, about x, y, z
    translation_mm: tuple[float, float, float]
    residual_rotation_deg: tuple[float, float, float]  # what registration leaves
    residual_translation_mm: tuple[float, float, float]
    residual_bias: NDArray[np.float32]  # (9,) what N4 leaves of the bias
    noise_seed: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Acquisition:
    """How a population's machines scan: ranges that each visit draws from, and their protocol beside the usual one."""

    vendors: tuple[str, str, str] = VENDORS  # of the three sites
    first_site: int = 0
    noise_fraction: tuple[float, float] = (0.015, 0.05)
    thick_slices_mm: tuple[float, ...] = (3.0, 4.0, 5.0)
    volumetric_share: float = 0.4
    echo_time_factor: float = 1.0
    inversion_time_factor: float = 1.0


def draw_nuisance(rng: np.random.Generator, acquisition: Acquisition, patient_pose: NDArray[np.float64]) -> Nuisance:
    """Draw one visit's nuisance; `patient_pose` (6,) is what registration leaves at all visits of the patient."""
    table = residual_table()
    gain = float(np.exp(0.25 * rng.standard_normal()))
    bias = (rng.standard_normal(9) * np.array([0.1, 0.1, 0.1, *[0.06] * 6])).astype(np.float32)
    noise_fraction = float(rng.uniform(*acquisition.noise_fraction))
    thick_slice_mm = float(rng.choice(acquisition.thick_slices_mm))
    volumetric = bool(rng.uniform() < acquisition.volumetric_share)
    rotation_deg, translation_mm = _triple(rng, 4.0), _triple(rng, 4.0)
    jitter = rng.standard_normal(6)
    noise_seed = int(rng.integers(2**31))
    pose = [float(each) for each in patient_pose + table.visit_pose(rng, jitter)]
    return Nuisance(
        gain=gain,
        bias=bias,
        noise_fraction=noise_fraction,
        thick_slice_mm=thick_slice_mm,
        volumetric=volumetric,
        rotation_deg=rotation_deg,
        translation_mm=translation_mm,
        residual_rotation_deg=(pose[0], pose[1], pose[2]),
        residual_translation_mm=(pose[3], pose[4], pose[5]),
        residual_bias=table.bias(rng, volumetric=volumetric),
        noise_seed=noise_seed,
    )


def _triple(rng: np.random.Generator, sd: float) -> tuple[float, float, float]:
    x, y, z = (float(each) for each in np.clip(sd * rng.standard_normal(3), -2.5 * sd, 2.5 * sd))
    return x, y, z


def rotation_matrix(angles_deg: tuple[float, float, float]) -> NDArray[np.float64]:
    """Return the rotation about x, then y, then z (3, 3)."""
    x, y, z = np.radians(angles_deg)
    about_x = np.array([[1, 0, 0], [0, np.cos(x), -np.sin(x)], [0, np.sin(x), np.cos(x)]])
    about_y = np.array([[np.cos(y), 0, np.sin(y)], [0, 1, 0], [-np.sin(y), 0, np.cos(y)]])
    about_z = np.array([[np.cos(z), -np.sin(z), 0], [np.sin(z), np.cos(z), 0], [0, 0, 1]])
    return np.asarray(about_z @ about_y @ about_x, dtype=np.float64)


def bias_terms(points_mm: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the smooth terms (9, N) that a field's logarithm is a sum of: x, y, z, x2, y2, z2, xy, yz, zx."""
    x, y, z = points_mm / np.float32(90)
    return np.stack([x, y, z, x * x, y * y, z * z, x * y, y * z, z * x])


def bias_field(coefficients: NDArray[np.float32], points_mm: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return a multiplicative shading at points (3, N), positive and near 1; `coefficients` (9,) of its logarithm."""
    terms = bias_terms(points_mm)
    field = np.zeros_like(terms[0])
    for weight, term in zip(coefficients, terms, strict=True):
        field += weight * term
    return np.asarray(np.exp(np.clip(field, -1, 1)), dtype=np.float32)


def add_rician_noise(signal: NDArray[np.float32], sd: float, seed: int) -> NDArray[np.float32]:
    """Return the magnitude of a complex signal with Gaussian noise of `sd` in both channels."""
    rng = np.random.default_rng(seed)
    real = signal + np.float32(sd) * rng.standard_normal(signal.shape, dtype=np.float32)
    imaginary = np.float32(sd) * rng.standard_normal(signal.shape, dtype=np.float32)
    return np.asarray(np.sqrt(real**2 + imaginary**2), dtype=np.float32)

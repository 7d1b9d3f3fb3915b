"""Write a phantom's studies as a scanner would send them, and beside them what is true."""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from inference.phantom.enhanced import write_enhanced
from inference.phantom.grid import Grid, scan_grid
from inference.phantom.modules import Series
from inference.phantom.render import acquire, ground_truth, place_head, render
from inference.phantom.scanner import scanner
from inference.phantom.slices import Placed, SliceOrder, write_localizer, write_slices

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from inference.phantom.patient import PhantomPatient

ROLES = ("T1", "T1c", "T2", "FLAIR")


@dataclass(frozen=True, slots=True, kw_only=True)
class StudyOptions:
    """How a study is acquired and written. Spacing and shape are (z, y, x)."""

    roles: tuple[str, ...] = ROLES
    vendor: str | None = None  # None: the visit's own scanner
    enhanced: bool = False
    volumetric: bool = False  # 3D at 1 mm instead of 2D with thick slices
    spacing_mm: tuple[float, float, float] | None = None
    shape: tuple[int, int, int] | None = None
    oblique_deg: tuple[float, float, float] | None = None  # None: the operator's usual few degrees
    order: SliceOrder = SliceOrder.ASCENDING
    localizer: bool = False
    truth: bool = True

    def grid(self, patient: PhantomPatient, visit_index: int) -> Grid:
        """Return the grid the operator planned for this visit."""
        spacing = self.spacing_mm or ((1.0, 1.0, 1.0) if self.volumetric else (3.5, 1.0, 1.0))
        depth = round(156 / spacing[0])
        shape = self.shape or (depth, round(224 / spacing[1]), round(192 / spacing[2]))
        tilt = self.oblique_deg
        if tilt is None:
            rng = np.random.default_rng([patient.nuisance_seed, 4, visit_index])
            tilt = (float(rng.normal(-8, 4)), float(rng.normal(0, 2)), float(rng.normal(0, 2)))
        return scan_grid(spacing_mm=spacing, shape=shape, oblique_deg=tilt)


def write_study(
    patient: PhantomPatient, visit_index: int, folder: Path, options: StudyOptions | None = None
) -> list[Path]:
    """Write one visit: a folder per series, and `truth.json` with `truth.npz` where asked for.

    Returns:
        The DICOM files, series by series, in InstanceNumber order.

    Raises:
        IndexError: if there is no such visit.
        KeyError: if a role is unknown.
        ValueError: if the vendor is unknown.
    """
    options = options or StudyOptions()
    patient = _with_vendor(patient, visit_index, options.vendor)
    folder.mkdir(parents=True, exist_ok=True)
    paths: list[Path] = []
    if options.localizer:
        paths += _write_localizer(patient, visit_index, folder)
    grid = options.grid(patient, visit_index)
    scene = place_head(patient, visit_index, grid=grid)  # once: the contrasts share the anatomy
    for number, role in enumerate(options.roles, start=2):
        values, affine = acquire(scene, role, volumetric=options.volumetric)
        paths += write_volume(
            values, affine, patient, visit_index, folder / f"{number:03d}-{role}", role=role, options=options
        )
    if options.truth:
        _write_truth(patient, visit_index, folder, grid)
    return paths


def write_volume(
    values: NDArray[np.float32],
    affine: NDArray[np.float64],
    patient: PhantomPatient,
    visit_index: int,
    folder: Path,
    *,
    role: str = "FLAIR",
    options: StudyOptions | None = None,
) -> list[Path]:
    """Write a given volume (Z, Y, X) on its affine as one series; order and kind of object as in `options`.

    The same volume written ascending, reversed, interleaved or enhanced has the same content in the world.
    """
    options = options or StudyOptions()
    patient = _with_vendor(patient, visit_index, options.vendor)
    series = Series(
        patient=patient,
        visit_index=visit_index,
        number=2 + ROLES.index(role),
        name=role,
        volumetric=options.volumetric,
        vendor=patient.visits[visit_index].scanner.vendor,
    )
    placed = Placed(values=_stored(values), affine=affine)
    writer = write_enhanced if options.enhanced else write_slices
    return writer(placed, series, folder, order=options.order)


def write_patient(patient: PhantomPatient, folder: Path, options: StudyOptions | None = None) -> list[Path]:
    """Write every visit and the patient's `truth.json`; return the study folders, oldest first."""
    folder.mkdir(parents=True, exist_ok=True)
    folders = []
    for index, visit in enumerate(patient.visits):
        study = folder / f"{index:02d}-{visit.acquired:%Y%m%d}"
        if study.exists():
            shutil.rmtree(study)
        write_study(patient, index, study, options)
        folders.append(study)
    (folder / "truth.json").write_text(json.dumps(patient_truth(patient), indent=2) + "\n", encoding="utf-8")
    return folders


def patient_truth(patient: PhantomPatient) -> dict[str, object]:
    """Return everything that is known of a phantom, as JSON values; volumes in millilitres."""
    return {
        "synthetic": True,
        "patient_id": patient.patient_id,
        "issuer": "PHANTOM",
        "seed": patient.seed,
        "nuisance_seed": patient.nuisance_seed,
        "born": patient.born.isoformat(),
        "sex": patient.sex,
        "surgery": patient.surgery.isoformat(),
        "visits": [
            {"acquired": visit.acquired.isoformat(), "volume_ml": visit.volume_ml, "scanner": asdict(visit.scanner)}
            for visit in patient.visits
        ],
        "event": patient.event and patient.event.isoformat(),
        "last_follow_up": patient.last_follow_up.isoformat(),
        "event_within_horizon": patient.label,
        "history": asdict(patient.history),
        "dials": asdict(patient.dials),
        "population": patient.population.name,
    }


def _with_vendor(patient: PhantomPatient, visit_index: int, vendor: str | None) -> PhantomPatient:
    """Return the patient as if this visit had been scanned on another vendor's machine of the same field strength."""
    visit = patient.visits[visit_index]
    if vendor is None or vendor == visit.scanner.vendor:
        return patient
    machine = scanner(vendor, high_field=visit.scanner.field_t > 2)
    visits = list(patient.visits)
    visits[visit_index] = replace(visit, scanner=machine)
    return replace(patient, visits=tuple(visits))


def _stored(values: NDArray[np.float32]) -> NDArray[np.uint16]:
    """Round to the 12 bits a scanner stores."""
    return np.clip(np.rint(values), 0, 4095).astype(np.uint16)


def _write_localizer(patient: PhantomPatient, visit_index: int, folder: Path) -> list[Path]:
    grid = scan_grid(spacing_mm=(4.0, 4.0, 4.0), shape=(48, 64, 64))
    values, affine = render(patient, visit_index, "T1", grid=grid)
    vendor = patient.visits[visit_index].scanner.vendor
    series = Series(
        patient=patient, visit_index=visit_index, number=1, name="localizer", volumetric=False, vendor=vendor
    )
    return write_localizer(Placed(values=_stored(values), affine=affine), series, folder / "001-localizer")


def _write_truth(patient: PhantomPatient, visit_index: int, folder: Path, grid: Grid) -> None:
    """Write the masks (Z, Y, X) with their affine, and the visit's numbers."""
    masks = ground_truth(patient, visit_index, grid=grid)
    np.savez_compressed(folder / "truth.npz", affine_lps_mm=grid.affine, **masks)  # type: ignore[arg-type]
    visit = patient.visits[visit_index]
    truth = {
        "synthetic": True,
        "acquired": visit.acquired.isoformat(),
        "volume_ml": visit.volume_ml,
        "masks": sorted(masks),
        "patient": patient_truth(patient),
    }
    (folder / "truth.json").write_text(json.dumps(truth, indent=2) + "\n", encoding="utf-8")

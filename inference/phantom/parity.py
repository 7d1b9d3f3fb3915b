"""How far a bundle's answer on rendered phantoms is from its answer on the same phantoms sent as DICOM."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, time
from typing import TYPE_CHECKING

import numpy as np

from inference.bundle import Bundle, load
from inference.phantom.model_space import render_model_space
from inference.phantom.serving import serving_options
from inference.phantom.study import write_study
from inference.predictor import Predictor, Scan
from inference.preprocess import Preprocessed, Quality
from inference.preprocess.stretch import stretched_affine

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from inference.phantom.patient import PhantomPatient, Visit


@dataclass(frozen=True, slots=True, kw_only=True)
class ServedGap:
    """One synthetic patient's calibrated probabilities after its last visit: the whole way, and rendered."""

    patient: str
    visits: int
    label: bool | None
    served: float
    rendered: float


class _RenderedPredictor(Predictor):
    """A predictor whose scans come from the generator instead of from preprocessing; all that follows is the same."""

    def __init__(self, bundle: Bundle, patient: PhantomPatient) -> None:
        super().__init__(bundle, device="cpu")
        self._patient = patient

    def _preprocess(self, scan: Scan) -> Preprocessed:
        metadata, template = self.bundle.metadata, self.template
        shape = metadata.input_shape
        volume = render_model_space(self._patient, int(scan.digest), metadata.roles[0], shape=shape)
        return Preprocessed(
            array=volume,
            affine=stretched_affine(template.affine, template.array.shape, shape),
            template_to_source=np.eye(4),
            quality=Quality(coverage=1.0, overlap=1.0, mutual_information=1.0),
        )


def served_gap(bundle_folder: Path, patients: Iterable[PhantomPatient], work: Path) -> Iterator[ServedGap]:
    """Yield each patient's two answers; DICOM is written below `work`.

    Raises:
        BundleError: if the bundle cannot be used.
        PreprocessError: if a scan does not come to lie on the template.
    """
    bundle = load(bundle_folder)
    for patient in patients:
        task, role = bundle.metadata.name, bundle.metadata.roles[0]
        visits = list(enumerate(patient.visits))
        served = Predictor(bundle, device="cpu").predict(
            task, [_written(patient, index, work, role) for index, _ in visits], saliency_for=()
        )
        rendered = _RenderedPredictor(bundle, patient).predict(
            task, [_scan(visit, index, role) for index, visit in visits], saliency_for=()
        )
        yield ServedGap(
            patient=patient.patient_id,
            visits=len(visits),
            label=patient.label,
            served=served.result.outputs[0].probability,
            rendered=rendered.result.outputs[0].probability,
        )


def _written(patient: PhantomPatient, index: int, work: Path, role: str) -> Scan:
    """Write a visit as DICOM and return it as a scan."""
    visit = patient.visits[index]
    folder = work / f"{patient.patient_id}-{index:02d}"
    paths = write_study(patient, index, folder, serving_options(visit, role=role))
    return Scan(acquired=_acquired(visit), series={role: tuple(paths)}, digest=str(index))


def _scan(visit: Visit, index: int, role: str) -> Scan:
    """Return a visit as a scan without files; its digest is its number."""
    return Scan(acquired=_acquired(visit), series={role: ()}, digest=str(index))


def _acquired(visit: Visit) -> datetime:
    return datetime.combine(visit.acquired, time(9), tzinfo=UTC)

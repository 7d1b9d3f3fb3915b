"""A report with its saliency to send, made of the benchmark's own images, without a model."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal

import numpy as np
from pydicom import dcmread

from dicom_node.benchmark.images import MATRIX, Amount, write_images
from dicom_node.deliver.outcome import Load, Parcel
from dicom_node.ledger import deliveries
from dicom_node.timeline.task import SaliencyRule
from dicom_node.work.encode import encode_objects
from inference.results import ModelCard, Output, PrefixRisk, Result, SaliencyMap, SourceSlice
from sr_templates.sources import Device, InstanceRef, ReportContext, RunRecord, SeriesEvidence, TimePointEvidence
from sr_templates.template import load_template
from sr_templates.uids import derive_uid

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pydicom import Dataset

    from dicom_node.work.encode import EncodedObject

Format = Literal["multi-frame", "single-frame"]
SERIES: Final = 4
ACQUIRED: Final = datetime(2026, 1, 5, 9, 31, 30, tzinfo=UTC)
TASK: Final = "glioma-recurrence"
COUNTER_DIGITS: Final = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """The encoded objects of a run in order of sending, the report last, in one SOP class."""

    objects: Sequence[EncodedObject]

    def written(self, folder: Path, number: int) -> Load:
        """Write the objects as those of another run, so that an archive stores them anew; return what to send.

        Raises:
            OSError: if the disk says no.
        """
        folder.mkdir(parents=True)
        parcels = []
        for position, each in enumerate(self.objects):
            content = each.content
            for other in self.objects:
                content = content.replace(
                    other.sop_instance_uid.encode(), _another(other.sop_instance_uid, number).encode()
                )
            path = folder / f"{position:03d}.dcm"
            path.write_bytes(content)
            uid = _another(each.sop_instance_uid, number)
            parcels.append(Parcel(path=path, sop_class_uid=each.sop_class_uid, sop_instance_uid=uid, kind=each.kind))
        return Load(objects=tuple(parcels[:-1]), reports=(parcels[-1],))


def make_report(folder: Path, slices: int, form: Format) -> Report:
    """Make the objects of a run on four series of so many slices, with saliency on the last of them.

    Raises:
        OSError: if the disk says no.
    """
    folders = write_images(folder, f"report {form}", Amount(series=SERIES, slices=slices))
    series = [[_header(path) for path in sorted(each.iterdir())] for each in folders]
    paths = {str(ds.SOPInstanceUID): Path(str(ds.filename)) for headers in series for ds in headers}
    made = encode_objects(
        _context(series, form),
        [_saliency(series[-1])],
        load_template("glioma_recurrence"),
        paths,
        saliency=SaliencyRule(format=form),
    )
    others = [each for each in made if not each.kind.startswith(deliveries.REPORT)]
    reports = [each for each in made if each.kind.startswith(deliveries.REPORT)]
    return Report(objects=[*others, reports[0]])


def _another(uid: str, number: int) -> str:
    """Return a UID of the same length for another run."""
    return uid[:-COUNTER_DIGITS] + f"{number:0{COUNTER_DIGITS}d}"


def _header(path: Path) -> Dataset:
    return dcmread(path, stop_before_pixels=True)


def _context(series: Sequence[Sequence[Dataset]], form: str) -> ReportContext:
    result = Result(
        task=TASK,
        model=ModelCard(
            name="benchmark",
            version="1",
            digest="sha256:" + "0" * 64,
            training_data="none",
            intended_use="benchmark",
            synthetic=True,
        ),
        horizon_days=365,
        outputs=(Output(name="recurrence_365d", probability=0.5, raw_probability=0.5),),
        trajectory=(PrefixRisk(n_scans=1, acquired=ACQUIRED.date(), probability=0.5),),
        saliency_method="none",
    )
    point = TimePointEvidence(
        acquired=ACQUIRED, kind="follow-up", days_from_surgery=100, series=tuple(_evidence(each) for each in series)
    )
    return ReportContext(
        record=RunRecord(run_key=form.encode().hex(), task=TASK, version=1, issued_at=ACQUIRED),
        patient_study=series[-1][0],
        time_points=(point,),
        result=result,
        device=Device(
            name="BENCHMARK",
            uid=derive_uid("benchmark device"),
            manufacturer="temporal-dicom-node",
            model_name="benchmark",
            software_version="1",
            station_ae_title="BENCHMARK",
            serial_number="1",
        ),
        phantom=True,
    )


def _evidence(headers: Sequence[Dataset]) -> SeriesEvidence:
    refs = tuple(
        InstanceRef(
            sop_class_uid=str(ds.SOPClassUID),
            sop_instance_uid=str(ds.SOPInstanceUID),
            series_instance_uid=str(ds.SeriesInstanceUID),
            study_instance_uid=str(ds.StudyInstanceUID),
        )
        for ds in headers
    )
    return SeriesEvidence(
        role="FLAIR",
        study_date=ACQUIRED.date(),
        frame_of_reference_uid=str(headers[0].FrameOfReferenceUID),
        instances=refs,
        representative=refs[len(refs) // 2],
    )


def _saliency(headers: Sequence[Dataset]) -> SaliencyMap:
    """Return a map of noise on noise: nothing that packs well."""
    rng = np.random.default_rng(1)
    shape = (len(headers), MATRIX, MATRIX)
    affine = np.diag([0.9, 0.9, 0.9, 1.0])
    affine[:3, 3] = (-115, -115, 0)
    return SaliencyMap(
        time_point=0,
        series_instance_uid=str(headers[0].SeriesInstanceUID),
        frame_of_reference_uid=str(headers[0].FrameOfReferenceUID),
        values=rng.random(shape, dtype=np.float32),
        anatomy=rng.random(shape, dtype=np.float32) * 1000,
        affine=affine,
        slices=tuple(
            SourceSlice(sop_class_uid=str(ds.SOPClassUID), sop_instance_uid=str(ds.SOPInstanceUID)) for ds in headers
        ),
    )

"""From a frozen run to what the report templates need: headers, evidence, predecessor, device."""

from __future__ import annotations

import importlib.metadata
from dataclasses import dataclass
from datetime import datetime, time
from typing import TYPE_CHECKING, Final

from pydicom import dcmread

from dicom_node.errors import NodeError
from dicom_node.work.demographics import correct
from inference.results import Result
from sr_templates.sources import (
    Device,
    InstanceRef,
    Predecessor,
    ReportContext,
    RunRecord,
    SeriesEvidence,
    TimePointEvidence,
)
from sr_templates.uids import derive_uid

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import date, tzinfo
    from pathlib import Path

    from pydicom import Dataset

    from dicom_node.ledger.encodings import Demographics
    from dicom_node.ledger.runs import OutboxObject, Run
    from dicom_node.timeline.model import InputSeries, InputTimePoint

MANUFACTURER: Final = "temporal-dicom-node"
MODEL_NAME: Final = "Temporal DICOM node"


@dataclass(frozen=True, slots=True, kw_only=True)
class Sources:
    """What a report is made from beside the run itself; `paths` maps SOP Instance UID to file."""

    paths: Mapping[str, Path]
    ae_title: str
    timezone: tzinfo | None  # of the site's clock: DICOM times without an offset are local
    phantom: bool
    predecessor: Run | None
    predecessor_reports: Sequence[OutboxObject]  # in each SOP Class
    rejected: frozenset[str] = frozenset()  # SOP Instance UIDs of this patient that a note took back
    requested_by: str | None = None  # the person who ordered the run, where one did
    template_digest: str = ""
    demographics: Demographics | None = None  # whom the header has to name; none: whom the newest study names


def build_context(run: Run, sources: Sources) -> ReportContext:
    """Gather everything the objects of one run need.

    Raises:
        NodeError: if the run is not frozen, or an input file is lost.
    """
    if run.result is None or run.version is None or run.issued_at is None:
        msg = f"run {run.run_key[:12]}: expected a frozen result, found none"
        raise NodeError(msg)
    result = Result.from_json(run.result)
    points = run.inputs.time_points
    return ReportContext(
        record=RunRecord(
            run_key=run.run_key,
            task=run.task,
            version=run.version,
            issued_at=run.issued_at.astimezone(sources.timezone),
            predecessor=_predecessor(run, sources),
            encoding=run.encoding,
        ),
        patient_study=_patient_study(run, sources),
        time_points=tuple(_evidence(each, sources.paths) for each in points),
        result=result,
        device=_device(sources.ae_title, result),
        remarks=(*run.remarks, *_not_comparable(run, sources)),
        phantom=sources.phantom,
        requested_by=sources.requested_by,
        template_digest=sources.template_digest,
    )


def target(run: Run) -> InputSeries:
    """Return the series in whose study the report will stand: one of the newest time point."""
    return run.inputs.time_points[-1].series[-1]


def instance_ref(found: OutboxObject) -> InstanceRef:
    """Return how a document names an object of ours."""
    return InstanceRef(
        sop_class_uid=found.sop_class_uid,
        sop_instance_uid=found.sop_instance_uid,
        series_instance_uid=found.series_instance_uid,
        study_instance_uid=found.study_instance_uid,
    )


def header(paths: Mapping[str, Path], sop_instance_uid: str) -> Dataset:
    """Read an input's header.

    Raises:
        NodeError: if the file is lost.
    """
    try:
        return dcmread(paths[sop_instance_uid], stop_before_pixels=True)
    except (KeyError, OSError) as error:
        msg = "an input file of this run is lost from the instance folder"
        raise NodeError(msg) from error


def _patient_study(run: Run, sources: Sources) -> Dataset:
    """Return the header that the report takes patient and study from, corrected where an archive corrected them."""
    ds = header(sources.paths, target(run).instances[0].sop_instance_uid)
    if sources.demographics is not None:
        correct(ds, sources.demographics, default_issuer=run.issuer)
    return ds


def _evidence(point: InputTimePoint, paths: Mapping[str, Path]) -> TimePointEvidence:
    return TimePointEvidence(
        acquired=datetime.combine(point.acquired_on, point.acquired_time or time()),
        kind=point.kind.value,
        days_from_surgery=point.days_since_surgery,
        series=tuple(_series(point, each, paths) for each in point.series),
    )


def _series(point: InputTimePoint, series: InputSeries, paths: Mapping[str, Path]) -> SeriesEvidence:
    instances = tuple(
        InstanceRef(
            sop_class_uid=each.sop_class_uid,
            sop_instance_uid=each.sop_instance_uid,
            series_instance_uid=series.series_instance_uid,
            study_instance_uid=series.study_instance_uid,
        )
        for each in series.instances
    )
    middle = instances[len(instances) // 2]
    image = header(paths, middle.sop_instance_uid)
    frames = int(image.get("NumberOfFrames", 0) or 0)
    return SeriesEvidence(
        role=series.role.value,
        study_date=_study_date(image) or point.acquired_on,
        frame_of_reference_uid=series.frame_of_reference_uid,
        instances=instances,
        representative=middle,
        representative_frame=frames // 2 + 1 if frames else None,
    )


def _study_date(image: Dataset) -> date | None:
    """Return the Study Date, which is not the day of the scan where a study passed midnight; None if it says none."""
    try:
        return datetime.strptime(str(image.get("StudyDate", "")).strip(), "%Y%m%d").date()  # noqa: DTZ007 - only a day
    except ValueError:
        return None


def _not_comparable(run: Run, sources: Sources) -> tuple[str, ...]:
    """Say that another model made the report before this one: a reader would take the difference for a change."""
    earlier = sources.predecessor
    if earlier is None or earlier.result is None or earlier.issued_at is None:
        return ()
    if earlier.bundle_digest == run.bundle_digest:
        return ()
    model, day = Result.from_json(earlier.result).model, earlier.issued_at.astimezone(sources.timezone).date()
    return (f"the report of {day} was made by another model ({model.name} {model.version}): not comparable",)


def _predecessor(run: Run, sources: Sources) -> Predecessor | None:
    earlier, reports = sources.predecessor, sources.predecessor_reports
    if earlier is None or not reports or earlier.issued_at is None:
        return None
    return Predecessor(
        reports=tuple(instance_ref(each) for each in reports),
        issued=earlier.issued_at.astimezone(sources.timezone).date(),
        replaced=earlier.inputs.dates[-1] == run.inputs.dates[-1],
        taken_back=_rests_on_what_was_taken_back(earlier, run, sources.rejected),
    )


def _rests_on_what_was_taken_back(earlier: Run, run: Run, rejected: frozenset[str]) -> bool:
    """Tell whether an earlier report saw a newer scan than this one can, or an image that was rejected since."""
    seen = (each for point in earlier.inputs.time_points for series in point.series for each in series.instances)
    return earlier.inputs.dates[-1] > run.inputs.dates[-1] or any(each.sop_instance_uid in rejected for each in seen)


def _device(ae_title: str, result: Result) -> Device:
    return Device(
        name=ae_title,
        uid=derive_uid("device", ae_title, result.model.digest),  # changes with each retraining
        manufacturer=MANUFACTURER,
        model_name=MODEL_NAME,
        software_version=importlib.metadata.version("temporal-dicom-node"),
        station_ae_title=ae_title,
        serial_number=ae_title,
    )

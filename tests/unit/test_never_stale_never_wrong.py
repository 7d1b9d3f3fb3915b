"""Whom a report is for, how old its newest scan may be, and what never becomes an input: one sentence per trap."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING

import numpy as np
import pytest
from pydicom import Dataset
from pydicom.sequence import Sequence as Items
from pydicom.uid import (
    CTImageStorage,
    EncapsulatedPDFStorage,
    GrayscaleSoftcopyPresentationStateStorage,
    MRSpectroscopyStorage,
    ParametricMapStorage,
    SecondaryCaptureImageStorage,
    SegmentationStorage,
)

from dicom_node.receive.facts import NotAnInput, read_facts
from dicom_node.timeline.build import build_time_line
from dicom_node.timeline.decide import decide
from dicom_node.timeline.decision import Circumstances, Due, Ended, Held, Ineligible, Waiting
from dicom_node.timeline.model import Event, Role
from sr_templates.headers import to_bytes
from sr_templates.measurement_report import build_report
from sr_templates.saliency_capture import build_saliency
from sr_templates.summary_page import build_summary, render_summary
from sr_templates.template import load_template
from tests.factories.facts import (
    BUNDLE_DIGEST,
    DWI,
    FLAIR,
    GLIOMA,
    PATIENT,
    SELECTION,
    T1,
    a_cohort,
    a_series,
    a_task,
    follow_ups,
)
from tests.factories.mr import classic_series, write
from tests.factories.results import DAYS, mr_header, report_context, saliency_map

if TYPE_CHECKING:
    from pathlib import Path

APRIL, JULY, OCTOBER, JANUARY = date(2025, 4, 1), date(2025, 7, 1), date(2025, 10, 1), date(2026, 1, 5)
THREE = (APRIL, JULY, OCTOBER)
NOW = datetime(2026, 1, 20, 12, 0, tzinfo=UTC)
KNEE = {**FLAIR, "BodyPartExamined": "KNEE"}
UNTOLD = {key: value for key, value in FLAIR.items() if key != "BodyPartExamined"}
NAMING = a_task(gates={"newest_exam_unusable": "name"})


def _decide(instances, *, task=GLIOMA, cohort=None, now=NOW, **circumstances):
    cohort = cohort or a_cohort()
    line = build_time_line(instances, selection=SELECTION, task=task, cohort=cohort)
    asked = Circumstances(patient=PATIENT, bundle_digest=BUNDLE_DIGEST, **circumstances)
    return decide(line, task, cohort, (), now, circumstances=asked)


def _texts(decision):
    return [reason.text for reason in decision.reasons]


def test_a_patient_with_a_knee_mr_only_is_not_eligible() -> None:
    """Even with the right diagnosis in the cohort: nothing of the brain was imaged."""
    decision = _decide([instance for day in THREE for instance in a_series(day, KNEE)])
    assert isinstance(decision, Ineligible)
    assert _texts(decision)[0].startswith("no series of what is asked for: body part KNEE (expected BRAIN")


def test_a_knee_among_the_brains_is_no_time_point() -> None:
    """The four exams are three follow-ups, and the newest, a knee, is not missed."""
    due = _decide([*follow_ups(*THREE), *a_series(JANUARY, KNEE)])
    assert isinstance(due, Due)
    assert due.inputs.dates == THREE


def test_a_body_part_that_nobody_tells_is_not_eligible() -> None:
    """Unknown is not eligible."""
    decision = _decide([instance for day in THREE for instance in a_series(day, UNTOLD)])
    assert isinstance(decision, Ineligible)
    assert "body part not told" in _texts(decision)[0]


@pytest.mark.parametrize("diagnosis", ["meningioma", "no glioma", "glioma?", "metastasis"])
def test_a_meningioma_is_not_eligible(diagnosis) -> None:
    """The diagnosis is one of the task's words, not a part of one."""
    decision = _decide(follow_ups(*THREE), cohort=a_cohort(diagnosis=diagnosis))
    assert isinstance(decision, Ineligible)
    assert _texts(decision)[0].startswith(f"diagnosis {diagnosis} (expected glioma, ")


def test_an_unknown_diagnosis_is_not_eligible() -> None:
    """It is asked for."""
    decision = _decide(follow_ups(*THREE), cohort=a_cohort(diagnosis=""))
    assert isinstance(decision, Ineligible)
    assert _texts(decision) == ["diagnosis unknown: enter it in the cohort"]


def test_every_reason_against_a_patient_is_told_at_once() -> None:
    """An admin does not mend one to meet the next."""
    task = a_task(eligibility={"age_years": [18, 90]})
    decision = _decide(a_series(APRIL, KNEE), task=task, cohort=a_cohort(diagnosis="meningioma"))
    assert [reason.code for reason in decision.reasons] == ["diagnosis", "body-part", "age"]


def test_a_back_fill_whose_year_is_over_is_not_reported() -> None:
    """The horizon would lie in the past; the last day that counts is told by the limit."""
    last_day = datetime(2026, 10, 1, 23, 59, tzinfo=UTC)
    assert isinstance(_decide(follow_ups(*THREE), now=last_day), Due)
    decision = _decide(follow_ups(*THREE), now=last_day + timedelta(minutes=1))
    assert isinstance(decision, Waiting)
    assert _texts(decision) == ["newest scan of 2025-10-01 is 366 days old (at most 365)"]


def test_a_back_fill_is_reported_once_a_new_scan_makes_it_current() -> None:
    """The old scans are history, not the answer's date."""
    late = datetime(2027, 1, 10, tzinfo=UTC)
    due = _decide(follow_ups(*THREE, date(2027, 1, 5)), now=late)
    assert isinstance(due, Due)
    assert due.inputs.dates[-1] == date(2027, 1, 5)


@pytest.mark.parametrize(
    ("newer", "text"),
    [
        ((DWI,), "needs FLAIR on 2026-01-05"),
        ((T1, DWI), "needs FLAIR on 2026-01-05"),
        (({**FLAIR, "ImageType": ("DERIVED", "SECONDARY", "MPR")},), "needs FLAIR on 2026-01-05"),
        ((UNTOLD,), "needs FLAIR on 2026-01-05 (body part not told (expected BRAIN"),
    ],
    ids=["diffusion only", "everything but FLAIR", "a reformatted FLAIR only", "a FLAIR of untold body part"],
)
def test_a_newer_exam_without_a_usable_flair_holds_the_case_or_is_named(newer, text) -> None:
    """As the task says; never is it passed over in silence."""
    exam = [instance for number, kind in enumerate(newer) for instance in a_series(JANUARY, kind, name=str(number))]
    held = _decide([*follow_ups(*THREE), *exam])
    assert isinstance(held, Held)
    assert _texts(held)[0].startswith(f"newer exam not used: {text}")
    due = _decide([*follow_ups(*THREE), *exam], task=NAMING)
    assert isinstance(due, Due)
    assert [flag.code for flag in due.flags] == ["newer-exam-not-used"]
    assert due.inputs.dates == THREE


def test_a_newer_scan_just_after_a_second_operation_holds_the_case() -> None:
    """It is no follow-up, and a risk from before the operation would be stale."""
    cohort = replace(a_cohort(), surgeries=(*a_cohort().surgeries, replace(a_cohort().surgeries[0], on=JANUARY)))
    decision = _decide(follow_ups(*THREE, JANUARY + timedelta(days=2)), cohort=cohort)
    assert isinstance(decision, Held)
    assert _texts(decision) == ["newer exam not used: 2026-01-07 is early-post-op"]


def test_after_a_recorded_recurrence_no_scan_is_ever_an_input() -> None:
    """Surveillance is over, however many scans follow."""
    cohort = a_cohort(events=(Event(on=OCTOBER),))
    assert isinstance(_decide(follow_ups(*THREE, JANUARY), cohort=cohort), Ended)


def _flair(tmp_path: Path, **attributes):
    """Return the facts of a brain FLAIR read from files."""
    told = {
        "BodyPartExamined": "BRAIN",
        "ScanningSequence": ["SE", "IR"],
        "EchoTime": "95",
        "RepetitionTime": "9000",
        "InversionTime": "2500",
        "AcquisitionDate": "20251001",
    } | attributes
    series = classic_series(np.zeros((24, 8, 8), dtype=np.uint16), np.diag([20.0, 20.0, 6.0, 1.0]), **told)
    return [read_facts(path, default_issuer="HOSPITAL") for path in write(series, tmp_path / "series")]


def _equipment(purpose: str) -> Items:
    """Return equipment that had a part in an object (PS3.3 C.12.1.1.5)."""
    code = Dataset()
    code.CodeValue, code.CodingSchemeDesignator, code.CodeMeaning = purpose, "DCM", "purpose"
    item = Dataset()
    item.Manufacturer, item.PurposeOfReferenceCodeSequence = "Elsewhere", Items([code])
    return Items([item])


@pytest.mark.parametrize(
    ("attributes", "name"),
    [
        ({"ImageType": ["DERIVED", "SECONDARY", "AI"]}, "derived"),
        ({"ImageType": ["DERIVED", "PRIMARY", "M", "ND"]}, "derived"),
        ({"ImageType": ["ORIGINAL", "SECONDARY"]}, "derived"),
        ({"ImageType": ["DERIVED", "SECONDARY", "MPR"]}, "MPR"),
        ({"ContributingEquipmentSequence": _equipment("109102")}, "derived"),
        ({"BurnedInAnnotation": "YES"}, "screen save"),
    ],
    ids=["secondary", "derived though primary", "secondary though original", "MPR", "processed elsewhere", "burned in"],
)
def test_an_mr_object_made_from_other_images_is_never_an_input(tmp_path: Path, attributes, name) -> None:
    """Whatever contrast it shows, and whoever made it."""
    instances = _flair(tmp_path, **attributes)
    (point,) = build_time_line(instances, selection=SELECTION, task=GLIOMA, cohort=a_cohort()).time_points
    assert point.chosen == {}
    assert [reason.text for _, reason in point.excluded] == [f"{name} is not used"]


@pytest.mark.parametrize(
    "attributes",
    [
        {},
        {"ImageType": ["ORIGINAL", "PRIMARY", "M", "NORM", "DIS2D"]},
        {"ImageType": ["ORIGINAL", "PRIMARY", "M_IR", "M", "IR"]},
        {"ContributingEquipmentSequence": _equipment("109104")},
        {"ContributingEquipmentSequence": _equipment("109103")},
        {"BurnedInAnnotation": "NO"},
    ],
    ids=["plain", "normalised and undistorted by the scanner", "Philips", "de-identified", "coerced", "not burned in"],
)
def test_what_the_scanner_itself_finished_is_an_input(tmp_path: Path, attributes) -> None:
    """So the rules above are no rules against everything."""
    instances = _flair(tmp_path, **attributes)
    (point,) = build_time_line(instances, selection=SELECTION, task=GLIOMA, cohort=a_cohort()).time_points
    assert set(point.chosen) == {Role.FLAIR}


@pytest.mark.parametrize(
    ("sop_class_uid", "kind"),
    [
        (SecondaryCaptureImageStorage, "secondary-capture"),
        (SegmentationStorage, "segmentation"),
        (ParametricMapStorage, "parametric-map"),
        (MRSpectroscopyStorage, "mr-spectroscopy"),
        (GrayscaleSoftcopyPresentationStateStorage, "presentation-state"),
        (CTImageStorage, "other-sop-class"),
        (EncapsulatedPDFStorage, "other-sop-class"),
    ],
)
def test_another_sop_class_is_never_an_input_even_if_it_calls_itself_mr(tmp_path: Path, sop_class_uid, kind) -> None:
    """The SOP class decides, not the modality."""
    (ds,) = classic_series(np.zeros((1, 8, 8), dtype=np.uint16), np.eye(4), Modality="MR")
    ds.SOPClassUID = ds.file_meta.MediaStorageSOPClassUID = sop_class_uid
    (path,) = write([ds], tmp_path / "one")
    with pytest.raises(NotAnInput) as caught:
        read_facts(path, default_issuer="HOSPITAL")
    assert caught.value.kind == kind


def test_our_own_report_page_and_saliency_are_never_inputs(tmp_path: Path) -> None:
    """The very objects that the node sends, should an archive send them back."""
    context, template = report_context(), load_template("glioma_recurrence")
    ours = [
        build_report(context, template),
        build_saliency(context, saliency_map(), mr_header(DAYS[-1], "T1c", 0), template=template),
        build_summary(context, render_summary(context, template, None), template=template),
    ]
    kinds = []
    for number, ds in enumerate(ours):
        path = tmp_path / f"{number}.dcm"
        path.write_bytes(to_bytes(ds))
        with pytest.raises(NotAnInput) as caught:
            read_facts(path, default_issuer="HOSPITAL")
        kinds.append(caught.value.kind)
    assert kinds == ["structured-report", "secondary-capture", "secondary-capture"]

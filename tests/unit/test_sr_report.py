"""The Structured Report says what the result says, to whom it belongs, and what it is not."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import replace
from datetime import UTC, date, datetime
from io import BytesIO

import pydicom
import pytest
from pydicom import Dataset
from pydicom.dataelem import RawDataElement
from pydicom.tag import Tag

from inference.results import AbstentionKind, QualityFlag
from sr_templates.errors import ReportError
from sr_templates.headers import to_bytes
from sr_templates.measurement_report import SOP_CLASS_UIDS, build_report
from sr_templates.parametric_map import build_parametric_map
from sr_templates.read_report import concept, read_report
from sr_templates.render_html import to_html
from sr_templates.saliency_capture import build_saliency
from sr_templates.single_frame_capture import build_saliency_series
from sr_templates.sources import InstanceRef, Predecessor
from sr_templates.summary_page import build_summary, render_summary
from sr_templates.template import load_template
from sr_templates.uids import derive_uid
from sr_templates.wording import percent
from tests.factories.results import (
    DAYS,
    SENTINEL_NAME,
    answer,
    mr_header,
    no_answer,
    report_context,
    saliency_map,
    time_point,
)

TEMPLATE = load_template("glioma_recurrence")


def build(**changes: object) -> Dataset:
    """Return the report of a context with changes."""
    return build_report(report_context(**changes), TEMPLATE)


def earlier(*, replaced: bool, taken_back: bool = False) -> Predecessor:
    """Return a report of July."""
    study = mr_header(DAYS[-1 if replaced else -2], "T1c", 0).StudyInstanceUID
    reports = tuple(
        InstanceRef(
            sop_class_uid=uid,
            sop_instance_uid=derive_uid("earlier", name),
            series_instance_uid=derive_uid("earlier series", name),
            study_instance_uid=study,
        )
        for name, uid in SOP_CLASS_UIDS.items()
    )
    return Predecessor(reports=reports, issued=date(2024, 7, 16), replaced=replaced, taken_back=taken_back)


def items(ds: Dataset) -> list[Dataset]:
    """Return every content item, in document order."""
    return [each for child in ds.get("ContentSequence", ()) for each in (child, *items(child))]


def instances(ds: Dataset, keyword: str) -> list[tuple[str, str]]:
    """Return (study, instance) of an evidence sequence."""
    return [
        (study.StudyInstanceUID, each.ReferencedSOPInstanceUID)
        for study in ds.get(keyword, ())
        for series in study.ReferencedSeriesSequence
        for each in series.ReferencedSOPSequence
    ]


def test_the_same_context_gives_the_same_bytes() -> None:
    """A report encoded twice is one file: no clock, no random UID, no unordered set is in it."""
    assert to_bytes(build()) == to_bytes(build())


def test_noise_below_the_shown_digits_keeps_the_uid_and_another_answer_changes_it() -> None:
    """The answer is part of the name, its rounding error is not."""
    uid = build().SOPInstanceUID
    assert build(result=answer(0.713000001)).SOPInstanceUID == uid
    assert build(result=answer(0.72)).SOPInstanceUID != uid


def test_a_new_version_is_a_new_instance_in_a_new_series_that_tracks_the_same_question() -> None:
    """Viewers show one report per series, and follow one question by its tracking UID."""
    context = report_context()
    first = build_report(context, TEMPLATE)
    second = build_report(replace(context, record=replace(context.record, version=2)), TEMPLATE)
    assert first.SOPInstanceUID != second.SOPInstanceUID
    assert first.SeriesInstanceUID != second.SeriesInstanceUID
    assert read_report(first).tracking_uid == read_report(second).tracking_uid


def test_the_summary_opens_with_research_use_and_holds_what_a_reader_needs() -> None:
    """Warning, answer with interval and horizon, scans, cautions, remarks, model, training data."""
    ds = build()
    first = next(item for item in ds.ContentSequence if item.RelationshipType == "CONTAINS")
    lines = str(first.TextValue).split("\r\n")
    assert lines[0].startswith("RESEARCH USE ONLY")
    text = "\n".join(lines)
    assert "within 365 days of the scan of 2024-10-18 (until 2025-10-18): 71 %" in text
    assert "interval 62 to 80 %) - High risk" in text
    assert all(day.date().isoformat() in text for day in DAYS)
    assert "slices of 5 mm" in text
    assert "T2 of 2024-10-18 not used" in text
    assert "temporal-recurrence 1.2.0" in text
    assert "1,200 patients" in text


@pytest.mark.parametrize("sop_class", sorted(SOP_CLASS_UIDS))
def test_every_sop_class_carries_the_same_answer_under_its_own_uid(sop_class: str) -> None:
    """The fallback is another instance of the same tree."""
    ds = build_report(report_context(), TEMPLATE, sop_class=sop_class)  # type: ignore[arg-type]
    assert ds.SOPClassUID == ds.file_meta.MediaStorageSOPClassUID == SOP_CLASS_UIDS[sop_class]  # type: ignore[index]
    assert read_report(ds).probability == pytest.approx(0.713)


def test_the_document_is_marked_unverified_preliminary_research() -> None:
    """A machine never verifies, and nothing claims more than research."""
    ds = build()
    assert (ds.VerificationFlag, ds.PreliminaryFlag, ds.CompletionFlag) == ("UNVERIFIED", "PRELIMINARY", "COMPLETE")
    assert ds.ContentQualification == "RESEARCH"
    assert ds.SeriesDescription.startswith("RUO ")
    assert "VerifyingObserverSequence" not in ds
    assert "ReferencedRequestSequence" not in ds


def test_no_container_is_continuous_and_no_code_is_unregistered() -> None:
    """Viewers drop the labels of continuous containers; a private code must say whose it is."""
    ds = build()
    tree = [ds, *items(ds)]
    assert {item.ContinuityOfContent for item in tree if item.ValueType == "CONTAINER"} == {"SEPARATE"}
    registered = {item.CodingSchemeDesignator for item in ds.CodingSchemeIdentificationSequence}
    names = [item.ConceptNameCodeSequence[0] for item in tree]
    assert {name.CodingSchemeDesignator for name in names if name.CodingSchemeDesignator[:2] == "99"} <= registered


def test_the_patient_stands_in_the_patient_module_alone() -> None:
    """Neither the tree nor a description repeats who the patient is."""
    ds = build()
    assert ds.PatientName == SENTINEL_NAME
    assert (ds.PatientID, ds.IssuerOfPatientID) == ("P0001", "TESTHOSP")
    del ds.PatientName
    assert "SENTINEL" not in str(ds)
    assert "P0001" not in str(items(ds))


def test_names_beyond_ascii_survive_the_change_of_character_set() -> None:
    """A Latin-1 name is written again as UTF-8."""
    header = mr_header(DAYS[-1], "T1c", 0)
    header.PatientName = "Müller^Jürgen"
    ds = pydicom.dcmread(BytesIO(to_bytes(build(patient_study=pydicom.dcmread(BytesIO(to_bytes(header)))))))
    assert ds.SpecificCharacterSet == "ISO_IR 192"
    assert str(ds.PatientName) == "Müller^Jürgen"


def test_sequences_are_written_in_our_character_set_and_unreadable_numbers_left_out() -> None:
    """A Latin-1 procedure name nested in a sequence is UTF-8 in ours; a weight of `70,5` stops nothing."""
    header = mr_header(DAYS[-1], "T1c", 0)
    code = Dataset()
    code.CodeValue, code.CodingSchemeDesignator, code.CodeMeaning = "1", "99X", "Schädel"
    header.ProcedureCodeSequence = [code]
    data = to_bytes(header)
    source = pydicom.dcmread(BytesIO(data))
    source[0x00101030] = RawDataElement(Tag(0x00101030), "DS", 4, b"70,5", 0, False, True)
    ds = pydicom.dcmread(BytesIO(to_bytes(build(patient_study=source))))
    assert ds.ProcedureCodeSequence[0].CodeMeaning == "Schädel"
    assert "PatientWeight" not in ds


def test_absent_patient_attributes_are_written_empty() -> None:
    """Type 2 attributes exist even where the scanner left them out."""
    header = mr_header(DAYS[-1], "T1c", 0)
    for keyword in ("PatientBirthDate", "PatientSex", "AccessionNumber", "ReferringPhysicianName"):
        delattr(header, keyword)
    ds = build(patient_study=header)
    assert ds.PatientBirthDate == ds.PatientSex == ds.AccessionNumber == ""


def test_times_are_told_in_the_time_zone_of_the_study() -> None:
    """Where the study tells its offset, ours are converted to it; where not, no offset is claimed."""
    assert "TimezoneOffsetFromUTC" not in build()
    header = mr_header(DAYS[-1], "T1c", 0)
    header.TimezoneOffsetFromUTC = "+0200"
    ds = build(patient_study=header)
    assert (ds.TimezoneOffsetFromUTC, ds.ContentDate, ds.ContentTime) == ("+0200", "20241018", "203005")
    equipment = ds.ContributingEquipmentSequence[0]
    assert equipment.ContributionDateTime == "20241018183005+0000"
    assert equipment.DeviceUID
    assert "".join(equipment.SoftwareVersions[1:]) == "sha256:" + "3f1a9c0d" * 8


def test_every_input_is_evidence_once_the_newest_study_as_current() -> None:
    """The prior studies stand as pertinent other evidence; no instance stands in both."""
    context = report_context()
    ds = build_report(context, TEMPLATE)
    current = instances(ds, "CurrentRequestedProcedureEvidenceSequence")
    older = instances(ds, "PertinentOtherEvidenceSequence")
    assert {study for study, _ in current} == {ds.StudyInstanceUID}
    assert ds.StudyInstanceUID not in {study for study, _ in older}
    every = [uid for _, uid in current + older]
    assert len(every) == len(set(every))
    assert set(every) == {ref.sop_instance_uid for ref in context.instances}


def test_a_single_time_point_needs_no_other_evidence() -> None:
    """The sequence of older studies is absent then, for it must not be empty."""
    result = replace(answer(), trajectory=(), flags=())
    ds = build(result=result, time_points=(time_point(DAYS[-1]),))
    assert "PertinentOtherEvidenceSequence" not in ds


def test_captures_are_referenced_in_the_tree_and_in_the_evidence() -> None:
    """The reader can open saliency and summary page from the report."""
    context = report_context()
    saliency = build_saliency(context, saliency_map(), mr_header(DAYS[-1], "T1c", 0), template=TEMPLATE)
    page = build_summary(context, render_summary(context, TEMPLATE, saliency_map()), template=TEMPLATE)
    ds = build_report(context, TEMPLATE, references=[saliency, page])
    named = {
        concept(item): item.ReferencedSOPSequence[0].ReferencedSOPInstanceUID
        for item in ds.ContentSequence
        if item.ValueType == "IMAGE"
    }
    assert named == {"SALIENCY_MAP": saliency.SOPInstanceUID, "SUMMARY_PAGE": page.SOPInstanceUID}
    report = read_report(ds)
    assert set(named.values()) <= report.input_sop_instance_uids
    where = "series 9002 (RUO AI saliency T1c 2024-10-18), series 9003 (RUO AI summary page)"
    assert f"Images of this result in this study: {where}" in report.summary


def test_each_time_point_has_its_context_and_its_prefix_probability() -> None:
    """Order, kind, days from surgery, and what the scans up to it say."""
    ds = build()
    orders = [item.MeasuredValueSequence[0].NumericValue for item in items(ds) if concept(item) == "126073"]
    offsets = [item for item in items(ds) if concept(item) == "128740"]
    assert orders == [1, 2, 3, 4]
    assert [item.MeasuredValueSequence[0].NumericValue for item in offsets] == [62, 155, 249, 344]
    assert read_report(ds).trajectory == (
        ("20240110", 0.31),
        ("20240412", 0.42),
        ("20240715", pytest.approx(0.55)),
        ("20241018", pytest.approx(0.713)),
    )


def test_a_time_point_of_unknown_kind_claims_nothing() -> None:
    """No time point type and no offset are written where they are not known."""
    points = tuple(replace(time_point(day), kind="unknown", days_from_surgery=None) for day in DAYS)
    concepts = {concept(item) for item in items(build(time_points=points))}
    assert not {"126072", "128740"} & concepts


@pytest.mark.parametrize("kind", list(AbstentionKind))
def test_an_abstention_has_a_reason_and_no_number(kind: AbstentionKind) -> None:
    """No value, the qualifier of CID 42, a partial document; nowhere a 0 %."""
    ds = build(result=no_answer(kind))
    report = read_report(ds)
    assert report.probability is None
    assert report.qualifier == kind.value
    assert ds.CompletionFlag == "PARTIAL"
    assert any(line.startswith("NO ANSWER") and "images unlike" in line for line in report.summary)
    assert "0 %" not in "\n".join(report.summary)


def test_a_synthetic_model_is_named_in_every_object_and_has_no_risk_band() -> None:
    """Summary, category, algorithm, equipment, captures: each says where the model comes from."""
    context = report_context(answer(synthetic=True), phantom=True)
    ds = build_report(context, TEMPLATE)
    report = read_report(ds)
    assert report.summary[1].startswith("SYNTHETIC PHANTOM MODEL")
    assert report.summary[2].startswith("SYNTHETIC PHANTOM DATA")
    assert report.category == "SYNTHETIC MODEL - NOT FOR CLINICAL USE"
    assert "risk band" not in "\n".join(report.summary)
    assert not any(f"- {band.label}" in line for band in TEMPLATE.main.bands for line in report.summary)
    saliency = build_saliency(context, saliency_map(), mr_header(DAYS[-1], "T1c", 0), template=TEMPLATE)
    page = build_summary(context, render_summary(context, TEMPLATE, None), template=TEMPLATE)
    for each in (ds, saliency, page):
        assert "SYNTHETIC PHANTOM" in each.ContributingEquipmentSequence[0].ContributionDescription
        assert each.ContentQualification == "RESEARCH"
    assert all("SYNTHETIC PHANTOM MODEL" in each.ImageComments for each in (saliency, page))


def test_a_correction_replaces_its_predecessor() -> None:
    """The same scans again: the older report is named as replaced."""
    context = report_context()
    record = replace(context.record, predecessor=earlier(replaced=True), version=2)
    ds = build_report(replace(context, record=record), TEMPLATE)
    sop = ds.PredecessorDocumentsSequence[0].ReferencedSeriesSequence[0].ReferencedSOPSequence[0]
    assert sop.PurposeOfReferenceCodeSequence[0].CodeValue == "121360"
    assert "Replaces the report of 2024-07-16 on the same newest scan." in read_report(ds).summary


@pytest.mark.parametrize(
    ("template", "sentence"),
    [
        ("glioma_recurrence", "Replaces the report of 2024-07-16, which rests on images taken back; do not use it."),
        (
            "glioma_recurrence.de",
            "Ersetzt den Bericht vom 2024-07-16, der auf zurückgezogenen Bildern beruht; nicht mehr verwenden.",
        ),
    ],
)
def test_a_predecessor_on_images_taken_back_is_replaced_and_never_called_valid(template: str, sentence: str) -> None:
    """Its own scans are what is wrong with it."""
    context = report_context()
    record = replace(context.record, predecessor=earlier(replaced=False, taken_back=True), version=2)
    ds = build_report(replace(context, record=record), load_template(template))
    sop = ds.PredecessorDocumentsSequence[0].ReferencedSeriesSequence[0].ReferencedSOPSequence[0]
    assert sop.PurposeOfReferenceCodeSequence[0].CodeValue == "121360"
    assert [line for line in read_report(ds).summary if "2024-07-16" in line] == [sentence]


def test_a_new_time_point_leaves_the_earlier_report_valid() -> None:
    """It is named as predecessor, without the purpose that would replace it."""
    context = report_context()
    record = replace(context.record, predecessor=earlier(replaced=False))
    ds = build_report(replace(context, record=record), TEMPLATE)
    sop = ds.PredecessorDocumentsSequence[0].ReferencedSeriesSequence[0].ReferencedSOPSequence[0]
    assert "PurposeOfReferenceCodeSequence" not in sop
    assert any(line.startswith("Updates report of 2024-07-16") for line in read_report(ds).summary)
    assert read_report(ds).predecessor_sop_instance_uid == derive_uid("earlier", "Comprehensive3DSR")


@pytest.mark.parametrize("sop_class", sorted(SOP_CLASS_UIDS))
def test_a_predecessor_is_named_as_the_same_destination_holds_it(sop_class: str) -> None:
    """A fallback report names the fallback before it; where there was none, the report there was."""
    context = report_context()
    record = replace(context.record, predecessor=earlier(replaced=False))
    ds = build_report(replace(context, record=record), TEMPLATE, sop_class=sop_class)  # type: ignore[arg-type]
    assert read_report(ds).predecessor_sop_instance_uid == derive_uid("earlier", sop_class)
    only_one = replace(earlier(replaced=False), reports=earlier(replaced=False).reports[:1])
    record = replace(context.record, predecessor=only_one)
    ds = build_report(replace(context, record=record), TEMPLATE, sop_class=sop_class)  # type: ignore[arg-type]
    assert read_report(ds).predecessor_sop_instance_uid == derive_uid("earlier", "Comprehensive3DSR")


def test_who_ordered_a_run_is_an_observer_beside_the_device() -> None:
    """By login name, and nobody where the node did it by itself; no character that would split the name."""
    by_hand = [item for item in items(build(requested_by="jdoe^=x")) if item.RelationshipType == "HAS OBS CONTEXT"]
    assert [item.ConceptCodeSequence[0].CodeValue for item in by_hand if concept(item) == "121005"] == [
        "121007",
        "121006",
    ]
    assert [str(item.PersonName) for item in by_hand if concept(item) == "121008"] == ["jdoe  x^"]
    assert [item.TextValue for item in by_hand if concept(item) == "128774"] == ["jdoe^=x"]
    assert "121008" not in {concept(item) for item in items(build())}


def test_what_was_left_out_stands_in_a_container_of_its_own_with_its_reason() -> None:
    """One comment per remark; no empty container where there is none."""
    ds = build(remarks=("T2 not used: gap", "scan of May: too early"))
    (selection,) = [item for item in ds.ContentSequence if concept(item) == "SELECTION"]
    assert [item.TextValue for item in selection.ContentSequence] == [
        "Note: T2 not used: gap",
        "Note: scan of May: too early",
    ]
    assert "SELECTION" not in {concept(item) for item in build(remarks=()).ContentSequence}


def test_a_quality_remark_stands_with_the_scan_that_it_is_about_or_with_the_answer() -> None:
    """Its time point's group where it has one, else the group of the answer."""
    flags = (*answer().flags, QualityFlag(code="few-scans", message="4 scans; expected at least 5"))
    ds = build(result=replace(answer(), flags=flags))
    groups = [item for item in items(ds) if concept(item) == "125007"]
    comments = [
        [str(item.TextValue) for item in group.ContentSequence if concept(item) == "121106"] for group in groups
    ]
    assert comments == [
        ["Caution: 4 scans; expected at least 5"],
        [],
        ["Caution: slices of 5 mm, model trained on 1-3 mm"],
        [],
        [],
    ]


def test_every_question_of_the_template_is_told_as_not_measured_where_the_model_abstains() -> None:
    """One group per output, the primary first, each without a value, with the qualifier and the reason."""
    words = TEMPLATE.main
    second = words.model_copy(
        update={
            "label": "Methylation",
            "probability": words.probability.model_copy(update={"value": "MGMTMETH_P"}),
            "category": words.category.model_copy(update={"value": "MGMTMETH_CAT"}),
        }
    )
    template = TEMPLATE.model_copy(update={"outputs": {"mgmt": second, **TEMPLATE.outputs}})
    ds = build_report(report_context(no_answer(AbstentionKind.NOT_ATTEMPTED)), template)
    numbers = [item for item in items(ds) if concept(item) in ("RECUR_P_365", "MGMTMETH_P")]
    assert [concept(item) for item in numbers] == ["RECUR_P_365", "MGMTMETH_P"]
    assert all(not item.MeasuredValueSequence for item in numbers)
    assert {item.NumericValueQualifierCodeSequence[0].CodeValue for item in numbers} == {"114007"}
    reasons = [str(item.TextValue) for item in items(ds) if concept(item) == "121106"]
    assert reasons.count("not attempted: images unlike those the model was trained on") == 2


def test_of_a_series_of_single_captures_the_report_points_at_one_and_a_map_has_its_own_name() -> None:
    """A reader opens a series, not forty references; all that is pointed at is evidence."""
    context = report_context()
    captures = build_saliency_series(context, saliency_map(), mr_header(DAYS[-1], "T1c", 0), template=TEMPLATE)[0]
    parametric = build_parametric_map(context, saliency_map(), mr_header(DAYS[-1], "T1c", 0), template=TEMPLATE)
    assert len(captures) > 1
    ds = build_report(context, TEMPLATE, references=[*captures, parametric])
    named = {concept(item): item for item in ds.ContentSequence if item.ValueType == "IMAGE"}
    assert set(named) == {"SALIENCY_MAP", "SALIENCY_VALUES"}
    shown = named["SALIENCY_MAP"].ReferencedSOPSequence[0].ReferencedSOPInstanceUID
    assert shown in {each.SOPInstanceUID for each in captures}
    assert {each.SOPInstanceUID for each in (*captures, parametric)} <= read_report(ds).input_sop_instance_uids
    line = next(line for line in read_report(ds).summary if line.startswith("Images of this result"))
    assert line.count("series 900") + line.count("series 901") == 2


def test_an_unknown_output_is_refused() -> None:
    """A number that the template has no words for is never shown."""
    result = answer()
    other = replace(result, outputs=(replace(result.outputs[0], name="mgmt"),))
    with pytest.raises(ReportError, match="found 'mgmt'"):
        build(result=other)


def test_an_answer_without_the_primary_output_is_refused() -> None:
    """The question of the task is answered, or the run abstains."""
    words = TEMPLATE.main
    template = TEMPLATE.model_copy(update={"outputs": {**TEMPLATE.outputs, "mgmt": words}})
    result = answer()
    second = replace(result.outputs[0], name="mgmt")
    with pytest.raises(ReportError, match="expected the primary output 'recurrence_365d'"):
        build_report(report_context(replace(result, outputs=(second,))), template)
    both = build_report(report_context(replace(result, outputs=(second, result.outputs[0]))), template)
    assert read_report(both).tracking_uid == read_report(build()).tracking_uid


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"time_points": ()}, "at least one time point"),
        ({"time_points": (time_point(DAYS[-1]), time_point(DAYS[0]))}, "oldest first"),
        ({"patient_study": mr_header(DAYS[0], "T1c", 0)}, "newest time point"),
        ({"time_points": (time_point(DAYS[-1]),)}, "a result about 1 scans"),
        (
            {
                "record": replace(
                    report_context().record, issued_at=datetime(2024, 1, 1, tzinfo=UTC).replace(tzinfo=None)
                )
            },
            "time zone",
        ),
    ],
)
def test_a_context_that_no_honest_report_can_be_made_from_is_refused(changes: dict[str, object], message: str) -> None:
    """No time points, wrong order, wrong study, a time of issue without a zone."""
    with pytest.raises(ReportError, match=message):
        report_context(**changes)


@pytest.mark.parametrize(
    ("probability", "shown"),
    [(0.0, "<1 %"), (0.009, "<1 %"), (0.01, "1 %"), (0.713, "71 %"), (0.99, "99 %"), (0.991, ">99 %"), (1, ">99 %")],
)
def test_a_percentage_is_never_a_false_certainty(probability: float, shown: str) -> None:
    """Neither 0 % nor 100 % is printed for a probability."""
    assert percent(probability) == shown


@pytest.mark.parametrize(
    ("probability", "shown", "number"),
    [
        (0.0, "<1 %", 0.01),
        (0.0003, "<1 %", 0.03),
        (0.00996, "<1 %", 0.996),
        (0.3267, "32.7 %", 32.7),
        (0.3299, "32.99 %", 32.99),
        (0.33, "33 %", 33.0),
        (0.659999999, "65.999999 %", 65.999999),
        (0.6604, "66 %", 66.0),
        (0.9904, ">99 %", 99.04),
        (0.9999, ">99 %", 99.99),
        (1.0, ">99 %", 99.99),
    ],
)
def test_number_and_text_agree_at_the_edges(probability: float, shown: str, number: float) -> None:
    """No 100.0 beside >99 %, no 0.0 beside <1 %, no 33 % beside a band that ends at 33."""
    ds = build(result=answer(probability))
    (found, *_) = (item for item in items(ds) if concept(item) == "RECUR_P_365")
    assert float(found.MeasuredValueSequence[0].NumericValue) == number
    (line,) = (line for line in read_report(ds).summary if "within 365 days" in line)
    assert f": {shown} (" in line
    assert TEMPLATE.main.band(number / 100) == TEMPLATE.main.band(probability)
    assert read_report(ds).trajectory[-1] == ("20241018", pytest.approx(number / 100))


def test_a_synthetic_model_is_named_in_the_group_of_each_scan() -> None:
    """A reader who is shown one group alone sees that its number is of phantoms."""
    groups = [item for item in items(build(result=answer(synthetic=True))) if concept(item) == "125007"]
    assert len(groups) == 1 + len(DAYS)
    for group in groups:
        said = [str(item.TextValue) for item in group.ContentSequence if concept(item) == "111002"]
        assert "training data=SYNTHETIC PHANTOMS" in said
        rated = [item.ConceptCodeSequence[0].CodeValue for item in group.ContentSequence if item.ValueType == "CODE"]
        assert "SYNTHETIC_MODEL" in rated
    assert "SYNTHETIC_MODEL" not in str(build())


def test_an_abstention_has_no_trajectory() -> None:
    """No probability stands beside the sentence that there is none."""
    with pytest.raises(ValueError, match="expected no trajectory beside an abstention, found 4 probabilities"):
        replace(no_answer(), trajectory=answer().trajectory)


def test_the_html_page_escapes_what_the_document_says() -> None:
    """A remark cannot bring markup into the page."""
    page = to_html(build(remarks=("<script>alert(1)</script>",)))
    assert "<script>" not in page
    assert "&lt;script&gt;" in page
    assert "RESEARCH USE ONLY" in page
    assert "71.3 %" in page
    assert "SENTINEL" not in page


def test_the_html_page_of_an_abstention_says_why_there_is_no_value() -> None:
    """The reason stands in place of the number."""
    assert "no value: Value indeterminate" in to_html(build(result=no_answer()))


def test_a_document_without_our_summary_is_not_read_as_a_report() -> None:
    """A foreign document is refused with what was expected."""
    with pytest.raises(ReportError, match="expected a summary"):
        read_report(Dataset())


@pytest.mark.peer
@pytest.mark.skipif(not (shutil.which("dciodvfy") and shutil.which("dsrdump")), reason="needs dicom3tools and dcmtk")
@pytest.mark.parametrize("result", [answer(), answer(synthetic=True), no_answer()], ids=["answer", "synthetic", "none"])
@pytest.mark.parametrize("sop_class", sorted(SOP_CLASS_UIDS))
def test_the_public_validators_find_no_error(tmp_path, result, sop_class) -> None:  # type: ignore[no-untyped-def]
    """No fault in the attributes (dciodvfy), none in the legality of the tree (dsrdump)."""
    context = report_context(result)
    page = build_summary(context, render_summary(context, TEMPLATE, None), template=TEMPLATE)
    saliency = build_saliency(context, saliency_map(), mr_header(DAYS[-1], "T1c", 0), template=TEMPLATE)
    report = build_report(context, TEMPLATE, references=[saliency, page], sop_class=sop_class)
    for name, ds in (("report", report), ("saliency", saliency), ("page", page)):
        path = tmp_path / f"{name}.dcm"
        path.write_bytes(to_bytes(ds))
        found = subprocess.run(["dciodvfy", path], capture_output=True, text=True, check=False).stderr
        assert "Error" not in found, found
    dump = subprocess.run(["dsrdump", tmp_path / "report.dcm"], capture_output=True, text=True, check=False)
    assert dump.returncode == 0
    assert not [line for line in dump.stderr.splitlines() if line.startswith(("E:", "F:"))]

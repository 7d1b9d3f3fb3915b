"""A good report that is broken in one way is complained of: by dciodvfy, by dsrdump, or by our own rules."""

from __future__ import annotations

import shutil
import subprocess
from io import BytesIO
from typing import TYPE_CHECKING

import pytest
from pydicom import Dataset, config, dcmread

from sr_templates import self_check
from sr_templates.errors import ReportError
from sr_templates.headers import to_bytes
from sr_templates.measurement_report import SopClass, build_report, build_reports
from sr_templates.read_report import concept
from sr_templates.template import load_template
from tests.factories.results import no_answer, report_context

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

TEMPLATE = load_template("glioma_recurrence")
GROUP, SUMMARY, PROBABILITY = "125007", "121111", "RECUR_P_365"
needs_validators = pytest.mark.skipif(
    not (shutil.which("dciodvfy") and shutil.which("dsrdump")), reason="needs dicom3tools and dcmtk"
)


def good(sop_class: SopClass = "ComprehensiveSR") -> Dataset:
    """Return a report that nobody complains of, as a file holds it."""
    return dcmread(BytesIO(to_bytes(build_report(report_context(), TEMPLATE, sop_class=sop_class))))


def find(ds: Dataset, code_value: str) -> Dataset:
    """Return the first content item of a concept, in document order."""
    found = _search(ds, code_value)
    assert found is not None
    return found


def _search(ds: Dataset, code_value: str) -> Dataset | None:
    for child in ds.get("ContentSequence", ()):
        found = child if concept(child) == code_value else _search(child, code_value)
        if found is not None:
            return found
    return None


def drop(ds: Dataset, code_value: str) -> None:
    """Take an item out of its parent."""
    ds.ContentSequence = [each for each in ds.ContentSequence if concept(each) != code_value]


def complaints_of_validators(ds: Dataset, folder: Path) -> list[str]:
    """Return what dciodvfy calls an error, and what dsrdump refuses."""
    path = folder / "report.dcm"
    path.write_bytes(to_bytes(ds))
    verified = subprocess.run(["dciodvfy", path], capture_output=True, text=True, errors="replace", check=False).stderr
    dump = subprocess.run(["dsrdump", path], capture_output=True, text=True, errors="replace", check=False)
    found = [line for line in verified.splitlines() if line.startswith("Error")]
    found += [line for line in dump.stderr.splitlines() if line.startswith(("E:", "F:"))]
    return found + ([f"dsrdump ends with {dump.returncode}"] if dump.returncode else [])


def number_without_units(ds: Dataset) -> None:
    """A value of nothing."""
    del find(ds, PROBABILITY).MeasuredValueSequence[0].MeasurementUnitsCodeSequence


def number_without_name(ds: Dataset) -> None:
    """A value of which nobody knows what it is."""
    del find(ds, PROBABILITY).ConceptNameCodeSequence


def prior_evidence_dropped(ds: Dataset) -> None:
    """The tree refers to images that the evidence does not list."""
    del ds.PertinentOtherEvidenceSequence


def coordinates_that_the_class_forbids(ds: Dataset) -> None:
    """A SCOORD3D in a Comprehensive SR."""
    item = Dataset()
    item.RelationshipType, item.ValueType = "CONTAINS", "SCOORD3D"
    item.ConceptNameCodeSequence = find(ds, "121106").ConceptNameCodeSequence
    item.GraphicType, item.GraphicData = "POINT", [1.0, 2.0, 3.0]
    item.ReferencedFrameOfReferenceUID = "1.2.3"
    find(ds, GROUP).ContentSequence.append(item)


def code_value_too_long(ds: Dataset) -> None:
    """17 characters where SH holds 16."""
    code = find(ds, PROBABILITY).ConceptNameCodeSequence[0]
    del code.CodeValue  # an element that is changed keeps the rule it was made under
    code.CodeValue = "RECURRENCE_P_3650"


def verified_without_observer(ds: Dataset) -> None:
    """A machine that signs for a human."""
    ds.VerificationFlag = "VERIFIED"


def verification_flag_missing(ds: Dataset) -> None:
    """Nobody says whether a human looked."""
    del ds.VerificationFlag


def unknown_completion(ds: Dataset) -> None:
    """A defined term that there is not."""
    ds.CompletionFlag = "FINISHED"


def content_date_empty(ds: Dataset) -> None:
    """A document without a day."""
    ds.ContentDate = ""


def illegal_relationship(ds: Dataset) -> None:
    """A container has no properties."""
    find(ds, PROBABILITY).RelationshipType = "HAS PROPERTIES"


def identifier_that_is_none(ds: Dataset) -> None:
    """A UID of letters."""
    item = find(ds, "112040")
    del item.UID
    item.UID = "not.a.uid"


def text_missing(ds: Dataset) -> None:
    """A Summary that says nothing."""
    del find(ds, SUMMARY).TextValue


PUBLIC = (
    number_without_units, number_without_name, prior_evidence_dropped, coordinates_that_the_class_forbids,
    code_value_too_long, verified_without_observer, verification_flag_missing, unknown_completion, content_date_empty,
    illegal_relationship, identifier_that_is_none, text_missing,
)  # fmt: skip


@pytest.mark.peer
@needs_validators
@pytest.mark.parametrize("fault", PUBLIC, ids=lambda fault: fault.__name__)
def test_the_public_validators_see_what_they_are_asked_for(fault: Callable[[Dataset], None], tmp_path: Path) -> None:
    """They find nothing in the good report, and something in the broken one, so their silence means something."""
    ds = good()
    assert complaints_of_validators(ds, tmp_path) == []
    with config.disable_value_validation():
        fault(ds)
        assert complaints_of_validators(ds, tmp_path)


def tracking_uid_missing(ds: Dataset) -> None:
    """Nothing follows the question over the reports."""
    drop(find(ds, GROUP), "112040")


def algorithm_version_missing(ds: Dataset) -> None:
    """Nobody knows which model answered."""
    drop(find(ds, GROUP), "111003")


def source_images_missing(ds: Dataset) -> None:
    """An answer about nothing."""
    drop(find(ds, GROUP), "121112")


def device_observer_missing(ds: Dataset) -> None:
    """Nobody knows who observed."""
    drop(ds, "121012")


def title_that_a_viewer_shows_black(ds: Dataset) -> None:
    """Imaging Measurement Report, which OHIF 3.12 does not show as text."""
    ds.ConceptNameCodeSequence[0].CodeValue = "126000"


def unit_in_words(ds: Dataset) -> None:
    """UCUM knows % and no percent."""
    find(ds, PROBABILITY).MeasuredValueSequence[0].MeasurementUnitsCodeSequence[0].CodeValue = "percent"


def impossible_percentage(ds: Dataset) -> None:
    """713 %."""
    find(ds, PROBABILITY).MeasuredValueSequence[0].NumericValue = 713


def one_instance_twice(ds: Dataset) -> None:
    """The newest study's instances as pertinent evidence too (PS3.3 C.17.2.3)."""
    ds.PertinentOtherEvidenceSequence.append(ds.CurrentRequestedProcedureEvidenceSequence[0])


def container_continuous(ds: Dataset) -> None:
    """Viewers drop its labels."""
    find(ds, GROUP).ContinuityOfContent = "CONTINUOUS"


def warning_not_first(ds: Dataset) -> None:
    """A Summary that begins with the answer."""
    summary = find(ds, SUMMARY)
    summary.TextValue = "\r\n".join(reversed(str(summary.TextValue).split("\r\n")))


def private_scheme_unknown(ds: Dataset) -> None:
    """Nobody answers for the private codes."""
    del ds.CodingSchemeIdentificationSequence


def not_marked_as_research(ds: Dataset) -> None:
    """A product that nobody cleared."""
    ds.ContentQualification = "PRODUCT"


OWN = (
    tracking_uid_missing, algorithm_version_missing, source_images_missing, device_observer_missing,
    title_that_a_viewer_shows_black, unit_in_words, impossible_percentage, one_instance_twice, container_continuous,
    warning_not_first, private_scheme_unknown, not_marked_as_research, prior_evidence_dropped,
    verified_without_observer, number_without_units,
)  # fmt: skip


@pytest.mark.parametrize("fault", OWN, ids=lambda fault: fault.__name__)
def test_our_own_rules_refuse_what_no_validator_minds(fault: Callable[[Dataset], None]) -> None:
    """Each is a report that would have left the node legal and wrong."""
    ds = good()
    assert self_check.faults(ds) == ()
    fault(ds)
    assert self_check.faults(ds)
    with pytest.raises(ReportError, match="expected"):
        self_check.refuse_faults(ds)


def test_a_report_without_an_answer_breaks_no_rule_but_one_without_a_reason_does() -> None:
    """A number may be absent where its qualifier says why, and only there."""
    ds = build_report(report_context(no_answer()), TEMPLATE)
    assert self_check.faults(ds) == ()
    del find(ds, PROBABILITY).NumericValueQualifierCodeSequence
    assert self_check.faults(ds) == ("number: expected a value, or a qualifier that says why there is none",)


def test_the_report_comes_in_every_class_a_destination_may_take() -> None:
    """Three instances of one tree, in the order of preference, none sharing UID or series."""
    reports = build_reports(report_context(), TEMPLATE, ())
    assert list(reports) == ["report", "report-compr", "report-enhanced"]
    assert all(len(kind) <= 16 for kind in reports)
    assert len({each.SOPInstanceUID for each in reports.values()}) == len(reports)
    assert len({each.SeriesInstanceUID for each in reports.values()}) == len(reports)
    trees = {each.to_json_dict()["0040A730"]["Value"].__repr__() for each in reports.values()}
    assert len(trees) == 1

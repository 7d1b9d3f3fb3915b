"""What the rules are asked of: attributes of classic and enhanced MR under one set of keywords."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from pydicom import Dataset
from pydicom.sequence import Sequence as Items

from dicom_node.receive.attributes import read_attributes
from dicom_node.receive.facts import content_digest
from dicom_node.timeline import keywords
from dicom_node.timeline.roles import classify
from dicom_node.timeline.selection import Selection
from tests.factories.facts import SELECTION

if TYPE_CHECKING:
    from collections.abc import Mapping


def _item(**attributes: Any) -> Items:
    ds = Dataset()
    for keyword, value in attributes.items():
        setattr(ds, keyword, value)
    return Items([ds])


def _enhanced(*, used: str = "", image_type: str = "T1", frame_type: str = "T1") -> Dataset:
    """Return the header of an enhanced T1: gradient echo, TE 3 ms, TR 7 ms."""
    (ds,) = _item(Modality="MR", ImageType=["ORIGINAL", "PRIMARY", image_type, "NONE"], EchoPulseSequence="GRADIENT")
    ds.ContrastBolusAgentSequence = _item(CodeValue="C-B03D1", CodeMeaning="Gadoterate")
    (group,) = _item(
        MRTimingAndRelatedParametersSequence=_item(RepetitionTime=7.0, FlipAngle=9.0),
        MREchoSequence=_item(EffectiveEchoTime=3.0),
        MRImageFrameTypeSequence=_item(FrameType=["ORIGINAL", "PRIMARY", frame_type, "NONE"]),
    )
    if used:
        group.ContrastBolusUsageSequence = _item(ContrastBolusAgentAdministered=used)
    ds.PerFrameFunctionalGroupsSequence = Items([group])
    return ds


def test_enhanced_attributes_come_under_their_classic_keywords() -> None:
    """One set of rules serves both."""
    attributes = read_attributes(_enhanced())
    expected = {"EchoTime": 3.0, "RepetitionTime": 7.0, "FlipAngle": 9.0, "ScanningSequence": ("GR",)}
    assert {key: attributes[key] for key in expected} == expected
    assert attributes["ContrastBolusAgent"] == "Gadoterate"


@pytest.mark.parametrize(("used", "expected"), [("YES", "T1c"), ("NO", "T1"), ("", "T1c")])
def test_frames_say_whether_the_agent_named_was_given(used: str, expected: str) -> None:
    """Enhanced MR names the agent of the exam; its frames say from when on it was there (PS3.3 C.7.6.16.2.12)."""
    assert classify(read_attributes(_enhanced(used=used)), SELECTION).name == expected


def test_what_only_the_frames_say_of_the_image_type_counts() -> None:
    """An object of several kinds of frames calls itself MIXED."""
    attributes = read_attributes(_enhanced(image_type="MIXED", frame_type="PHASE_MAP"))
    assert attributes["ImageType"] == ("ORIGINAL", "PRIMARY", "MIXED", "NONE", "PHASE_MAP")
    assert classify(read_attributes(_enhanced(image_type="MIXED", frame_type="P")), SELECTION).name == "phase image"


def test_every_attribute_that_rules_may_ask_about_is_read() -> None:
    """A rule about an attribute that is never read would be silently dead."""
    others: Mapping[str, Any] = {
        **dict.fromkeys(keywords.NUMBERS, 10),
        "PatientAge": "010Y",
        "ContributingEquipmentSequence": _item(PurposeOfReferenceCodeSequence=_item(CodeValue="109102")),
    }
    for keyword in (*keywords.NUMBERS, *keywords.TEXTS, *keywords.CONTEXT):
        (ds,) = _item(**{keyword: others.get(keyword, "A")})
        assert keyword in read_attributes(ds), keyword


def test_what_archives_fill_in_is_no_part_of_the_digest() -> None:
    """The scanner's copy and the archive's are the same input; the agent decides the role, so it counts."""
    attributes: Mapping[str, Any] = {"EchoTime": 90.0}
    (ds,) = _item(Rows=1, Columns=1, BitsAllocated=16, BitsStored=16, PixelRepresentation=0, PixelData=b"\0\0")
    ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME2"
    (ds.file_meta,) = _item(TransferSyntaxUID="1.2.840.10008.1.2.1")
    plain = content_digest(ds, dict(attributes))
    for keyword in keywords.CONTEXT:
        assert content_digest(ds, {**attributes, keyword: "as the archive sees it"}) == plain, keyword
    assert content_digest(ds, {**attributes, "ContrastBolusTotalDose": 5.0}) != plain


def test_a_rule_may_ask_about_every_attribute_read_and_no_other() -> None:
    """The message lists them."""
    for keyword in (*keywords.NUMBERS, *keywords.TEXTS, *keywords.CONTEXT):
        Selection.model_validate({"rules": [{"name": "x", "is": "y", "all": [{"tag": keyword, "present": True}]}]})
    with pytest.raises(ValueError, match="read from the images, one of: AcquisitionContrast"):
        Selection.model_validate({"rules": [{"name": "x", "is": "y", "all": [{"tag": "Rows", "present": True}]}]})

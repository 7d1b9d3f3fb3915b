"""What a series is: physics first, text second, and by name what is not used."""

from __future__ import annotations

from datetime import date
from typing import TYPE_CHECKING

import pytest

from dicom_node.documents import check_document
from dicom_node.errors import ConfigError
from dicom_node.timeline.model import Role
from dicom_node.timeline.roles import classify, classify_series, series_attributes
from dicom_node.timeline.selection import Selection
from tests.factories.facts import BRAIN, FLAIR, SELECTION, T1, T1C, a_series

if TYPE_CHECKING:
    from collections.abc import Mapping

    from dicom_node.timeline.model import Value


def _series(**attributes: Value) -> dict[str, Value]:
    return {**BRAIN, **attributes}


MPRAGE = _series(ScanningSequence=("GR", "IR"), EchoTime=2.3, RepetitionTime=2300.0, InversionTime=900.0, FlipAngle=8.0)
SPGR = _series(ScanningSequence="GR", EchoTime=3.2, RepetitionTime=8.2, FlipAngle=12.0)
T2 = _series(ScanningSequence="SE", EchoTime=100.0, RepetitionTime=4500.0, SeriesDescription="t2_tse_tra")
T1_FLAIR = _series(ScanningSequence=("SE", "IR"), EchoTime=24.0, RepetitionTime=2200.0, InversionTime=860.0)

TABLE: list[tuple[str, Mapping[str, Value], str]] = [
    ("FLAIR of Siemens, SE and IR", FLAIR, "FLAIR"),
    ("FLAIR as 3D SPACE, echo time of 394 ms", {**FLAIR, "EchoTime": 394.0, "InversionTime": 1800.0}, "FLAIR"),
    ("FLAIR after contrast agent stays FLAIR", {**FLAIR, "ContrastBolusAgent": "Dotarem"}, "FLAIR"),
    ("FLAIR named post gad stays FLAIR", {**FLAIR, "SeriesDescription": "AX FLAIR POST GAD"}, "FLAIR"),
    ("FLAIR of a scanner that tells no inversion time",
     _series(ScanningSequence="RM", EchoTime=120.0, RepetitionTime=8000.0, SeriesDescription="Ax T2 FLAIR"), "FLAIR"),
    ("FLAIR of a synthetic phantom", {**FLAIR, "SeriesDescription": "SYNTHETIC PHANTOM Ax T2 FLAIR"}, "FLAIR"),
    ("FLAIR that is only named", _series(SeriesDescription="FLAIR_longTR"), "FLAIR"),
    ("FLAIR that enhanced MR calls fluid attenuated", _series(AcquisitionContrast="FLUID_ATTENUATED"), "FLAIR"),
    ("MPRAGE is T1, for all its inversion", MPRAGE, "T1"),
    ("MPRAGE named after a FLAIR protocol is T1 by physics", {**MPRAGE, "ProtocolName": "brain flair"}, "T1"),
    ("MPRAGE with an agent is T1c", {**MPRAGE, "ContrastBolusAgent": "Gadavist"}, "T1c"),
    ("MPRAGE with an agent not tagged but named +C", {**MPRAGE, "SeriesDescription": "Sag MPRAGE +C"}, "T1c"),
    ("MPRAGE named post", {**MPRAGE, "SeriesDescription": "t1_mprage_sag_POST"}, "T1c"),
    ("MPRAGE named nach KM", {**MPRAGE, "SeriesDescription": "t1_mpr_tra_KM"}, "T1c"),
    ("T1 whose study-wide agent tag is contradicted by its name",
     {**T1C, "SeriesDescription": "t1_se_tra_PRE"}, "T1"),
    ("T1 named without contrast", {**T1, "SeriesDescription": "T1 W/O CONTRAST"}, "T1"),
    ("T1 whose agent tag says none", {**T1, "ContrastBolusAgent": "NONE"}, "T1"),
    ("T1 whose agent tag says no contrast", {**T1, "ContrastBolusAgent": "No Contrast"}, "T1"),
    ("T1 spin echo", T1, "T1"),
    ("T1 spin echo with an agent", T1C, "T1c"),
    ("T1 with fat saturation and agent", {**T1C, "ScanOptions": ("FS", "PFP")}, "T1c"),
    ("spoiled gradient echo", SPGR, "T1"),
    ("spoiled gradient echo after gad", {**SPGR, "SeriesDescription": "Ax 3D SPGR GAD"}, "T1c"),
    ("T1 FLAIR of GE is T1", {**T1_FLAIR, "SeriesDescription": "Ax T1 FLAIR"}, "T1"),
    ("T1 FLAIR with agent is T1c", {**T1_FLAIR, "SeriesDescription": "Ax T1 FLAIR +C"}, "T1c"),
    ("T1 FLAIR that tells no inversion time",
     _series(ScanningSequence="SE", EchoTime=20.0, RepetitionTime=2000.0, SeriesDescription="Ax T1 FLAIR"), "T1"),
    ("T2", T2, "T2"),
    ("T2 with fat saturation", {**T2, "ScanOptions": "FS"}, "T2"),
    ("T2 with a driven equilibrium pulse", {**T2, "SeriesDescription": "T2W_DRIVE"}, "T2"),
    ("PD and T2 in one series", {**T2, "EchoTime": (20.0, 90.0)}, "dual echo"),
    ("PD", {**T2, "EchoTime": 20.0, "SeriesDescription": "pd_tse"}, "PD"),
    ("STIR", {**T2, "ScanningSequence": ("SE", "IR"), "InversionTime": 160.0}, "STIR"),
    ("double inversion", {**FLAIR, "SeriesDescription": "t2_space_DIR"}, "DIR"),
    ("diffusion by b value", _series(DiffusionBValue=(0.0, 1000.0), EchoTime=80.0), "DWI"),
    ("a b value of 0 in every Philips image is no diffusion", {**FLAIR, "DiffusionBValue": 0.0}, "FLAIR"),
    ("ADC map", _series(ImageType=("DERIVED", "PRIMARY", "DIFFUSION", "ADC")), "ADC"),
    ("SWI", _series(ImageType=("ORIGINAL", "PRIMARY", "M", "SWI"), ScanningSequence="GR", EchoTime=20.0), "SWI"),
    ("gradient echo with a long echo", _series(ScanningSequence="GR", EchoTime=20.0, RepetitionTime=600.0), "T2*"),
    ("FLAIR computed by synthetic MR", {**FLAIR, "SeriesDescription": "Synthetic FLAIR"}, "parameter map"),
    ("localizer by image type", _series(ImageType=("ORIGINAL", "PRIMARY", "LOCALIZER")), "localizer"),
    ("localizer by name", {**SPGR, "SeriesDescription": "3-Plane Loc"}, "localizer"),
    ("perfusion", _series(SeriesDescription="ep2d_perf_DSC", ScanningSequence="EP"), "perfusion"),
    ("perfusion map", {**T2, "SeriesDescription": "rCBV_map"}, "perfusion"),
    ("time of flight", {**SPGR, "SeriesDescription": "TOF_3D_multi-slab"}, "MRA"),
    ("angiography by flag", {**SPGR, "AngioFlag": "Y"}, "MRA"),
    ("reformatted", {**FLAIR, "ImageType": ("DERIVED", "SECONDARY", "MPR")}, "MPR"),
    ("reformatted but original by its first value", {**FLAIR, "SeriesDescription": "FLAIR MPR cor"}, "MPR"),
    ("derived", {**FLAIR, "ImageType": ("DERIVED", "PRIMARY", "M")}, "derived"),
    ("screen save", _series(ImageType=("DERIVED", "SECONDARY", "SCREEN SAVE")), "screen save"),
    ("colour", {**FLAIR, "PhotometricInterpretation": "RGB"}, "screen save"),
    ("subtraction", {**T1C, "SeriesDescription": "SUB_t1_post-pre"}, "derived"),
    ("phase image", _series(ImageType=("ORIGINAL", "PRIMARY", "P", "ND")), "phase image"),
    ("spectroscopy", _series(SeriesDescription="csi_slaser"), "spectroscopy"),
    ("echo planar", _series(ScanningSequence=("GR", "EP"), EchoTime=30.0), "EPI"),
    ("balanced steady state",
     _series(ScanningSequence="GR", EchoTime=2.5, RepetitionTime=5.5, FlipAngle=60.0, SeriesDescription="FIESTA"),
     "balanced steady state"),
    ("CT", {"Modality": "CT"}, "not MR"),
    ("nothing told", BRAIN, "unrecognised"),
]  # fmt: skip


@pytest.mark.parametrize(("what", "attributes", "expected"), TABLE, ids=[row[0] for row in TABLE])
def test_a_series_is_what_a_reader_would_say(what: str, attributes: Mapping[str, Value], expected: str) -> None:
    """Each kind of series gets its role, or the name of what it is instead."""
    assert classify(attributes, SELECTION).name == expected


def test_only_the_four_roles_can_be_used() -> None:
    """A name that is not a role gives no role."""
    assert classify(FLAIR, SELECTION).role is Role.FLAIR
    assert classify({**FLAIR, "SeriesDescription": "localizer"}, SELECTION).role is None


def test_every_rule_tried_says_why() -> None:
    """The trace ends with the rule that matched; the others say what they needed and what they found."""
    trace = classify(FLAIR, SELECTION).trace
    assert [each.matched for each in trace] == [False] * (len(trace) - 1) + [True]
    assert trace[-1].rule == "flair-by-physics"
    stir = next(each for each in trace if each.rule == "stir")
    assert stir.because == "needs InversionTime between [60.0, 300.0]; found 2500"


def test_two_echoes_in_one_series_are_seen_across_its_instances() -> None:
    """A series is judged by all its instances, not by the first."""
    instances = a_series(date(2025, 6, 1), {**T2, "EchoTime": 20.0}, slices=2)
    instances += a_series(date(2025, 6, 1), {**T2, "EchoTime": 90.0}, slices=2)
    assert series_attributes(instances)["EchoTime"] == (20.0, 90.0)
    assert classify_series(instances, SELECTION).name == "dual echo"
    assert classify_series(instances[::-1], SELECTION) == classify_series(instances, SELECTION)


def _problems(rule: dict[str, object]) -> str:
    with pytest.raises(ConfigError) as caught:
        check_document({"rules": [rule]}, Selection, source="selection.yaml")
    return "\n".join(caught.value.problems)


@pytest.mark.parametrize(
    ("rule", "complaint"),
    [
        ({"name": "x", "is": "T1", "all": [{"tag": "EcoTime", "lt": 3}]}, "rules.0.all.0.tag = 'EcoTime'"),
        ({"name": "x", "is": "T1", "all": [{"tag": "EchoTime"}]}, "expected exactly one of"),
        ({"name": "x", "is": "T1", "all": [{"tag": "EchoTime", "lt": 3, "gt": 1}]}, "found lt, gt"),
        ({"name": "x", "is": "T1", "all": [{"tag": "Text", "regex": "("}]}, "not a regular expression"),
        ({"name": "x", "is": "T1", "all": [{"tag": "EchoTime", "between": [9, 3]}]}, "expected [low, high]"),
        ({"name": "x", "is": "T1"}, "expected at least one condition"),
        ({"name": "x", "is": "flair", "all": [{"tag": "EchoTime", "lt": 3}]}, "in this spelling"),
        ({"name": "x", "is": "T1", "every": []}, "rules.0.every: unknown key"),
    ],
)
def test_a_wrong_rule_is_refused_with_its_place(rule: dict[str, object], complaint: str) -> None:
    """The message names file, key, value and rule."""
    assert complaint in _problems(rule)
    assert _problems(rule).startswith("selection.yaml: rules.0")


def test_two_rules_of_one_name_are_refused() -> None:
    """An explanation names rules, so a name stands once."""
    rule = {"name": "x", "is": "T1", "all": [{"tag": "EchoTime", "lt": 3}]}
    with pytest.raises(ConfigError, match="found twice: x"):
        check_document({"rules": [rule, rule]}, Selection, source="s")

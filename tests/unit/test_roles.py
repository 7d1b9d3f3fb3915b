"""What a series is: physics first, text second, and by name what is not used."""

from __future__ import annotations

from datetime import date
from typing import TYPE_CHECKING

import pytest

from dicom_node.documents import check_document
from dicom_node.errors import ConfigError
from dicom_node.timeline.model import Role
from dicom_node.timeline.roles import classify, classify_parts, series_attributes
from dicom_node.timeline.selection import Selection
from tests.factories.facts import BRAIN, FLAIR, SELECTION, T1, T1C, a_series

if TYPE_CHECKING:
    from collections.abc import Mapping

    from dicom_node.timeline.model import InstanceFacts, Value


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
    ("FLAIR computed by synthetic MR", {**FLAIR, "SeriesDescription": "Synthetic FLAIR"}, "synthetic"),
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


# Makers' habits and hard cases, by what their headers look like.
VENDORS: list[tuple[str, Mapping[str, Value], str]] = [
    ("Siemens MPRAGE with fat saturation and agent",
     {**MPRAGE, "ScanOptions": ("IR", "FS"), "SeriesDescription": "t1_mprage_fs_sag_KM"}, "T1c"),
    ("Siemens T1 TSE with fat saturation, no agent", {**T1, "ScanOptions": "FS", "SeriesDescription": "t1_tse_fs_cor"},
     "T1"),
    ("Siemens T1 SPACE", _series(ScanningSequence="SE", EchoTime=7.2, RepetitionTime=600.0, SequenceName="*spc3d1",
                                 SeriesDescription="t1_space_sag_p2_iso"), "T1"),
    ("Siemens T2 SPACE", _series(ScanningSequence="SE", EchoTime=408.0, RepetitionTime=3200.0, FlipAngle=120.0,
                                 SeriesDescription="t2_space_sag"), "T2"),
    ("Siemens T1 dark fluid is T1", {**T1_FLAIR, "EchoTime": 9.0, "SeriesDescription": "t1_tirm_tra_dark-fluid"}, "T1"),
    ("Siemens balanced by name", {**SPGR, "SeriesDescription": "t2_trufi_tra"}, "balanced steady state"),
    ("Siemens balanced by physics",
     _series(ScanningSequence="GR", SequenceVariant=("SK", "SS"), EchoTime=1.9, RepetitionTime=4.3, FlipAngle=50.0),
     "balanced steady state"),
    ("GE spoiled gradient echo is not balanced, for all its steady state",
     {**SPGR, "SequenceVariant": ("SS", "SP", "SK"), "FlipAngle": 30.0}, "T1"),
    ("GE CUBE T1", _series(ScanningSequence="RM", EchoTime=11.0, RepetitionTime=600.0, SeriesDescription="Sag CUBE T1"),
     "T1"),
    ("GE CUBE T1 with agent", _series(ScanningSequence="RM", EchoTime=11.0, RepetitionTime=600.0,
                                      SeriesDescription="Sag CUBE T1 FS+C"), "T1c"),
    ("GE CUBE T2 FLAIR", _series(ScanningSequence=("SE", "IR"), EchoTime=120.0, RepetitionTime=6300.0,
                                 InversionTime=1760.0, SeriesDescription="Sag CUBE T2FLAIR"), "FLAIR"),
    ("GE CUBE T2", _series(ScanningSequence="SE", EchoTime=77.0, RepetitionTime=2500.0, SeriesDescription="CUBE T2"),
     "T2"),
    ("GE PROPELLER T2", _series(ScanningSequence="RM", EchoTime=105.0, RepetitionTime=5000.0,
                                SeriesDescription="Ax T2 PROPELLER"), "T2"),
    ("GE BRAVO in research mode", _series(ScanningSequence="RM", EchoTime=3.2, RepetitionTime=8.2, InversionTime=450.0,
                                          FlipAngle=12.0, SeriesDescription="Sag BRAVO"), "T1"),
    ("GE MPRAGE, called research mode with inversion",
     _series(ScanningSequence=("RM", "IR"), SequenceVariant="NONE", EchoTime=2.2, RepetitionTime=2428.0,
             InversionTime=1000.0, FlipAngle=8.0, Manufacturer="GE", ProtocolName="Brain Advanced Sequences"), "T1"),
    ("GE FLAIR told by its scan options only",
     _series(ScanningSequence="SE", ScanOptions=("FAST_GEMS", "T2FLAIR_GEMS"), EchoTime=133.0, RepetitionTime=10000.0,
             SeriesDescription="Ax DL High"), "FLAIR"),
    ("Philips T1 FFE, in a steady state that it does not call spoiled",
     _series(ScanningSequence="GR", SequenceVariant="SS", EchoTime=3.6, RepetitionTime=256.0, FlipAngle=80.0,
             SeriesDescription="T1W_FFE"), "T1"),
    ("Philips enhanced T1 TSE, whose Image Type says T1",
     _series(ImageType=("ORIGINAL", "PRIMARY", "T1", "NONE"), ScanningSequence="SE", EchoTime=23.0,
             RepetitionTime=520.0, SeriesDescription="T1W_TSE"), "T1"),
    ("Siemens XA split from one multi-frame object, denoised by deep learning",
     {**T2, "ImageType": ("ORIGINAL", "PRIMARY", "M", "NORM", "DRS", "DIS2D", "DRB", "MFSPLIT"),
      "SeriesDescription": "t2_tse_tra_p2 DR on"}, "T2"),
    ("GE names its exam's protocol, which says nothing of the T1 before contrast",
     {**T1, "Manufacturer": "GE MEDICAL SYSTEMS", "SeriesDescription": "Ax T1", "ProtocolName": "BRAIN W CONTRAST"},
     "T1"),
    ("GE names its exam's protocol, which is no angiogram",
     {**FLAIR, "Manufacturer": "GE MEDICAL SYSTEMS", "SeriesDescription": "Ax FLAIR", "ProtocolName": "BRAIN/MRA COW"},
     "FLAIR"),
    ("GE names its exam's protocol with and without, and the series with",
     {**T1, "Manufacturer": "GE MEDICAL SYSTEMS", "SeriesDescription": "+C Ax T1", "ProtocolName": "BRAIN W/O & W"},
     "T1c"),
    ("GE series without a description is known by its protocol",
     {**T1, "Manufacturer": "GE MEDICAL SYSTEMS", "SeriesDescription": "", "ProtocolName": "T1 GAD"}, "T1c"),
    ("GE MAGiC", {**T2, "SeriesDescription": "MAGiC T2 FLAIR"}, "synthetic"),
    ("GE water image", {**SPGR, "SeriesDescription": "WATER: Ax LAVA-Flex"}, "Dixon part"),
    ("GE calibration scan", {**SPGR, "SeriesDescription": "Calibration Scan"}, "calibration"),
    ("GE with a fat-saturated T2 whose inversion time is 0", {**T2, "InversionTime": 0.0}, "T2"),
    ("Philips T1 TFE with agent told in its protocol",
     _series(ScanningSequence="GR", EchoTime=3.7, RepetitionTime=8.1, FlipAngle=8.0, Manufacturer="Philips",
             SeriesDescription="sT1W_3D_TFE", ProtocolName="sT1W_3D_TFE_GD"), "T1c"),
    ("Philips T1W IR TSE", _series(ScanningSequence="IR", EchoTime=20.0, RepetitionTime=2000.0, InversionTime=800.0,
                                   SeriesDescription="T1W_IR_TSE"), "T1"),
    ("Philips T1 VISTA", _series(ScanningSequence="SE", EchoTime=18.0, RepetitionTime=400.0,
                                 SeriesDescription="3D_T1_VISTA"), "T1"),
    ("Philips FLAIR VISTA", _series(ScanningSequence="IR", EchoTime=340.0, RepetitionTime=4800.0, InversionTime=1650.0,
                                    DiffusionBValue=0.0, SeriesDescription="3D_Brain_VIEW_FLAIR"), "FLAIR"),
    ("Philips coil survey", {**SPGR, "SeriesDescription": "CoilSurvey_Head"}, "calibration"),
    ("Philips water image", {**T1, "ImageType": ("ORIGINAL", "PRIMARY", "W", "W", "DERIVED")}, "derived"),
    ("Philips real image", {**T1_FLAIR, "ImageType": ("ORIGINAL", "PRIMARY", "R_IR", "R", "IR")}, "phase image"),
    ("Canon FLAIR", _series(ImageType=("ORIGINAL", "PRIMARY", "GDC"), ScanningSequence=("SE", "IR"), EchoTime=105.0,
                            RepetitionTime=10000.0, InversionTime=2700.0, Manufacturer="CANON_MEC"), "FLAIR"),
    ("Canon FSBB", _series(ScanningSequence="GR", EchoTime=20.0, SeriesDescription="FSBB"), "SWI"),
    ("Hitachi FLAIR at 0.4 T", _series(ScanningSequence=("SE", "IR"), EchoTime=100.0, RepetitionTime=9000.0,
                                       InversionTime=1900.0, MagneticFieldStrength=0.4), "FLAIR"),
    ("Hitachi balanced SARGE", {**SPGR, "SeriesDescription": "3D BASG"}, "balanced steady state"),
    ("Hitachi susceptibility", _series(ScanningSequence="GR", EchoTime=28.0, SeriesDescription="BSI"), "SWI"),
    ("Hyperfine T1 at 0.064 T, whose name speaks of another contrast",
     _series(ScanningSequence=("SE", "IR"), EchoTime=6.0, RepetitionTime=1500.0, InversionTime=300.0,
             MagneticFieldStrength=0.064, SeriesDescription="T1 (Gray/White Contrast)"), "T1"),
    ("Hyperfine T1 after contrast", _series(ScanningSequence=("SE", "IR"), EchoTime=6.0, RepetitionTime=1500.0,
                                            InversionTime=300.0, MagneticFieldStrength=0.064,
                                            SeriesDescription="T1 +C"), "T1c"),
    ("Hyperfine T2", _series(ScanningSequence="SE", EchoTime=209.0, RepetitionTime=2000.0, MagneticFieldStrength=0.064,
                             SeriesDescription="T2 (Fast)"), "T2"),
    ("Hyperfine FLAIR", _series(ScanningSequence=("SE", "IR"), EchoTime=194.0, RepetitionTime=4000.0,
                                InversionTime=1400.0, MagneticFieldStrength=0.064), "FLAIR"),
    ("enhanced FLAIR that writes an inversion time of 0",
     _series(ScanningSequence=("SE", "IR"), EchoTime=120.0, RepetitionTime=8000.0, InversionTime=0.0,
             AcquisitionContrast="FLUID_ATTENUATED"), "FLAIR"),
    ("enhanced angiogram", {**SPGR, "AcquisitionContrast": "TOF"}, "MRA"),
    ("enhanced projection", {**SPGR, "VolumeBasedCalculationTechnique": "MAX_IP"}, "MRA"),
    ("enhanced reformat", {**FLAIR, "VolumeBasedCalculationTechnique": "MPR"}, "MPR"),
    ("enhanced STIR", {**T2, "AcquisitionContrast": "STIR"}, "STIR"),
    ("enhanced perfusion", _series(AcquisitionContrast="PERFUSION", EchoTime=30.0), "perfusion"),
    ("enhanced T1 whose frames say that the agent was not given",
     {**T1C, "ContrastBolusAgentAdministered": "NO"}, "T1"),
    ("enhanced T1 whose frames say that the agent was given", {**T1, "ContrastBolusAgentAdministered": "YES"}, "T1c"),
    ("two echoes in one multi-frame object stay together", {**T2, "EchoTime": (20.0, 90.0), "NumberOfFrames": 48.0},
     "dual echo"),
    ("a train of echoes measures T2 times", {**T2, "EchoTime": (20.0, 40.0, 60.0), "EchoNumbers": (1.0, 2.0, 3.0)},
     "multi-echo"),
    ("repeated over time", {**SPGR, "TemporalPositionIdentifier": (1.0, 2.0, 3.0)}, "dynamic"),
    ("time of flight told by its variant only", {**SPGR, "SequenceVariant": ("SK", "TOF")}, "MRA"),
    ("MP2RAGE quotient that calls itself original", {**MPRAGE, "ImageType": ("ORIGINAL", "PRIMARY", "M", "UNI")},
     "derived"),
    ("an inversion time that was not scanned", {**MPRAGE, "SeriesDescription": "t1_mp2rage_SIM-TI410ms"}, "synthetic"),
    ("MP2RAGE inversion image", {**MPRAGE, "SeriesDescription": "t1_mp2rage_INV1"}, "MP2RAGE part"),
    ("T1 map", {**MPRAGE, "ImageType": ("ORIGINAL", "PRIMARY", "T1 MAP")}, "parameter map"),
    ("field map", {**SPGR, "SeriesDescription": "gre_field_mapping"}, "field map"),
    ("task that is named BOLD", _series(ScanningSequence="EP", SeriesDescription="ep2d_bold_moco"), "functional"),
    ("an image that other software has processed", {**FLAIR, "ContributingEquipmentSequence": "109102"}, "derived"),
    ("T1 that is only named", _series(SeriesDescription="T1W axial"), "T1"),
    ("T1c that is only named", _series(SeriesDescription="T1W axial post contrast"), "T1c"),
    ("T2 that is only named", _series(SeriesDescription="T2W axial"), "T2"),
    ("T2* that is only named", _series(SeriesDescription="T2 star axial"), "unrecognised"),
    ("T1 FLAIR with agent that tells no inversion time",
     _series(ScanningSequence="SE", EchoTime=20.0, RepetitionTime=2000.0, SeriesDescription="Ax T1 FLAIR +C"), "T1c"),
    ("rest in an echo-planar series", _series(ScanningSequence=("GR", "EP"), SeriesDescription="REST1"), "functional"),
]  # fmt: skip

# (what, attributes beside those of a plain T1, whether the agent was given)
CONTRAST: list[tuple[str, Mapping[str, Value], bool]] = [
    ("agent", {"ContrastBolusAgent": "Gadovist"}, True),
    ("agent whose name begins like a refusal", {"ContrastBolusAgent": "Sinerem"}, True),
    ("agent tag that says without", {"ContrastBolusAgent": "ohne KM"}, False),
    ("agent tag that says 0", {"ContrastBolusAgent": "0"}, False),
    ("agent tag that says not given", {"ContrastBolusAgent": "not given"}, False),
    ("volume only", {"ContrastBolusVolume": 7.5}, True),
    ("volume of 0", {"ContrastBolusVolume": 0.0}, False),
    ("dose only", {"ContrastBolusTotalDose": 5.0}, True),
    ("route only, which scanners fill by default", {"ContrastBolusRoute": "IV"}, False),
    ("study-wide agent, series before it", {"ContrastBolusAgent": "Dotarem", "SeriesDescription": "T1 C-"}, False),
    ("post", {"SeriesDescription": "AX T1 POST"}, True),
    ("post-op is no contrast", {"SeriesDescription": "AX T1 POST-OP"}, False),
    ("post-surgical is no contrast", {"SeriesDescription": "AX T1 post surgery"}, False),
    ("posterior fossa is no contrast", {"SeriesDescription": "T1 post fossa"}, False),
    ("pre-op with an agent", {"SeriesDescription": "T1 PRE-OP GD"}, True),
    ("plus C", {"SeriesDescription": "+C AX T1 FSE"}, True),
    ("one word with C", {"SeriesDescription": "AX T1C"}, True),
    ("one word with Gd", {"SeriesDescription": "t1gd_tra"}, True),
    ("one word with pre", {"SeriesDescription": "T1pre", "ContrastBolusAgent": "Dotarem"}, False),
    ("with gadolinium, abbreviated", {"SeriesDescription": "SAG T1 W/GAD"}, True),
    ("cervical spine is no contrast", {"SeriesDescription": "T1 C-SPINE"}, False),
    ("minus C", {"SeriesDescription": "AX T1 -C"}, False),
    ("German after", {"SeriesDescription": "t1_se_tra_nach_KM"}, True),
    ("German abbreviated", {"SeriesDescription": "T1 tra +KM"}, True),
    ("German without", {"SeriesDescription": "T1 tra ohne KM"}, False),
    ("German before", {"SeriesDescription": "T1 tra nativ"}, False),
    ("German written out", {"SeriesDescription": "T1 tra mit Kontrastmittel"}, True),
    ("French injected", {"SeriesDescription": "AX T1 INJECTÉ"}, True),
    ("French after gadolinium", {"SeriesDescription": "T1 SE après gado"}, True),
    ("French without", {"SeriesDescription": "T1 SE sans injection"}, False),
    ("French before", {"SeriesDescription": "T1 avant injection"}, False),
    ("Spanish with", {"SeriesDescription": "T1 AX con contraste"}, True),
    ("Spanish without", {"SeriesDescription": "T1 AX sin contraste"}, False),
    ("Spanish abbreviated without", {"SeriesDescription": "T1 AX s/c"}, False),
    ("Italian with", {"SeriesDescription": "T1 TSE mdc"}, True),
    ("tissue contrast is none", {"SeriesDescription": "T1 tissue contrast"}, False),
]

# Words for what is not used, in the languages of its makers' customers.
WORDS = [
    ("Lokalisator", "localizer"),
    ("repérage 3 plans", "localizer"),
    ("localizador", "localizer"),
    ("Diffusion_ADC", "ADC"),
    ("difusión", "DWI"),
    ("perfusión", "perfusion"),
    ("Suszeptibilität", "SWI"),
    ("ARM willis", "MRA"),
    ("Angio TOF", "MRA"),
    ("espectroscopia", "spectroscopy"),
    ("Spektroskopie", "spectroscopy"),
    ("Reko cor", "MPR"),
    ("soustraction", "derived"),
    ("sustracción", "derived"),
]


@pytest.mark.parametrize(("what", "attributes", "expected"), TABLE + VENDORS, ids=[row[0] for row in TABLE + VENDORS])
def test_a_series_is_what_a_reader_would_say(what: str, attributes: Mapping[str, Value], expected: str) -> None:
    """Each kind of series gets its role, or the name of what it is instead."""
    assert classify(attributes, SELECTION).name == expected


@pytest.mark.parametrize(("what", "attributes", "given"), CONTRAST, ids=[row[0] for row in CONTRAST])
def test_a_t1_is_after_contrast_where_tag_or_text_says_so(
    what: str, attributes: Mapping[str, Value], given: bool
) -> None:
    """Spin echo, spoiled and inversion-prepared gradient echo alike; and a FLAIR stays one, with the agent noted."""
    for plain in ({**T1, "SeriesDescription": "t1"}, {**SPGR}, {**MPRAGE}):
        assert classify({**plain, **attributes}, SELECTION).name == ("T1c" if given else "T1")
    words = {
        "SeriesDescription": str(attributes.get("SeriesDescription", "")).replace("T1", "FLAIR").replace("t1", "flair")
    }
    flair = classify({**FLAIR, **attributes, **words}, SELECTION)
    assert (flair.role, flair.rule) == (Role.FLAIR, "flair-after-contrast" if given else "flair-by-physics")


@pytest.mark.parametrize(("words", "expected"), WORDS)
def test_what_is_not_used_is_known_in_other_languages(words: str, expected: str) -> None:
    """German, French and Spanish, each on top of physics that would make it a FLAIR."""
    assert classify({**FLAIR, "SeriesDescription": words}, SELECTION).name == expected


def test_every_shipped_rule_decides_something_here() -> None:
    """A rule without a row above could be wrong, or dead behind another, and nobody would see it."""
    cases = [attributes for _, attributes, _ in TABLE + VENDORS]
    cases += [{**plain, **attributes} for _, attributes, _ in CONTRAST for plain in (T1, SPGR, MPRAGE, FLAIR)]
    decided = {classify(attributes, SELECTION).rule for attributes in cases} | {"dual-echo-parts"}  # tested below
    assert {rule.name for rule in SELECTION.rules} - decided == set()


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
    adc = next(each for each in trace if each.rule == "adc")
    assert adc.because.endswith(". Found ImageType: ORIGINAL, PRIMARY, M; Text: t2 tse dark-fluid tra")
    assert len(adc.because) < 250


def _dual_echo(*times: float) -> list[InstanceFacts]:
    return [
        instance
        for number, echo_time in enumerate(times, start=1)
        for instance in a_series(
            date(2025, 6, 1), {**T2, "EchoTime": echo_time, "EchoNumbers": float(number)}, name="1", slices=4
        )
    ]


def test_each_echo_of_a_dual_echo_series_is_judged_by_itself() -> None:
    """Seen across the instances, not in the first; the trace begins with the rule that split it."""
    instances = _dual_echo(20.0, 90.0)
    assert series_attributes(instances)["EchoTime"] == (20.0, 90.0)
    first, second = classify_parts(instances, SELECTION)
    assert (first.name, first.verdict.name) == ("EchoTime 20", "PD")
    assert (second.name, second.verdict.role) == ("EchoTime 90", Role.T2)
    assert {each.attributes["EchoTime"] for each in second.instances} == {90.0}
    assert second.verdict.trace[0].rule == "dual-echo-parts"
    assert second.verdict.trace[0].because.endswith("split by EchoTime, this part is EchoTime 90")
    backwards = classify_parts(instances[::-1], SELECTION)
    assert [(each.name, each.verdict) for each in backwards] == [(each.name, each.verdict) for each in (first, second)]


def test_a_series_of_one_echo_or_a_train_of_echoes_is_not_split() -> None:
    """The first has nothing to split; the second measures T2 times and is no T2-weighted image."""
    assert [each.verdict.name for each in classify_parts(_dual_echo(90.0), SELECTION)] == ["T2"]
    assert [each.verdict.name for each in classify_parts(_dual_echo(20.0, 60.0, 100.0), SELECTION)] == ["multi-echo"]


def test_an_echo_time_that_jitters_is_one_echo() -> None:
    """Scanners write 90 and 90.001."""
    (whole,) = classify_parts(_dual_echo(90.0, 90.001), SELECTION)
    assert whole.name == ""


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
        ({"name": "x", "is": "T1", "split_by": "EchoTime", "all": [{"tag": "EchoTime", "lt": 3}]}, "exactly one of is"),
        ({"name": "x", "all": [{"tag": "EchoTime", "lt": 3}]}, "exactly one of is"),
        (
            {"name": "x", "split_by": "ImageType", "all": [{"tag": "EchoTime", "lt": 3}]},
            "expected a number that is read",
        ),
        (
            {"name": "x", "is": "T1", "all": [{"tag": "PixelBandwidth", "lt": 3}]},
            "attribute that is read from the images",
        ),
        ({"name": "x", "is": "T1", "all": [{"tag": "SeriesDescription", "lt": 3}]}, "lt: SeriesDescription is text"),
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

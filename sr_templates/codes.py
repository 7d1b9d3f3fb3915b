"""Coded concepts of the reports. A private code stands where no standard code says honestly what is meant."""

from __future__ import annotations

from highdicom.coding_schemes import CodingSchemeIdentificationItem
from highdicom.sr import CodedConcept

from inference.results import AbstentionKind

PRIVATE_SCHEME = "99GLIOTEMP"

# Document structure: TID 1500, CID 7021. Title 126000 is shown as a black viewport by OHIF 3.12, 126001 as text.
REPORT_TITLE = CodedConcept("126001", "DCM", "Oncology Measurement Report")
SUMMARY = CodedConcept("121111", "DCM", "Summary")
PROCEDURE_REPORTED = CodedConcept("121058", "DCM", "Procedure reported")
DEVICE = CodedConcept("121007", "DCM", "Device")
PERSON = CodedConcept("121006", "DCM", "Person")
COMMENT = CodedConcept("121106", "DCM", "Comment")
IMAGE_LIBRARY = CodedConcept("111028", "DCM", "Image Library")
IMAGE_LIBRARY_GROUP = CodedConcept("126200", "DCM", "Image Library Group")
IMAGING_MEASUREMENTS = CodedConcept("126010", "DCM", "Imaging Measurements")

# Image library descriptors: TID 1602.
MODALITY = CodedConcept("121139", "DCM", "Modality")
MAGNETIC_RESONANCE = CodedConcept("MR", "DCM", "Magnetic Resonance")
TARGET_REGION = CodedConcept("123014", "DCM", "Target Region")
STUDY_DATE = CodedConcept("111060", "DCM", "Study Date")
FRAME_OF_REFERENCE_UID = CodedConcept("112227", "DCM", "Frame of Reference UID")
SOURCE = CodedConcept("260753009", "SCT", "Source")

# Algorithm family: CID 7162. Contributing equipment: CID 7005. Predecessor: CID 7009.
ARTIFICIAL_INTELLIGENCE = CodedConcept("123110", "DCM", "Artificial Intelligence")
PROCESSING_EQUIPMENT = CodedConcept("109102", "DCM", "Processing Equipment")
REPLACED_REPORT = CodedConcept("121360", "DCM", "Replaced report")

# Time points: TID 1502, CID 6146.
TIME_POINT_TYPES = {
    "pre-op": CodedConcept("262068006", "SCT", "Pre-operative"),
    "early-post-op": CodedConcept("262061000", "SCT", "Post-operative"),
    "follow-up": CodedConcept("262061000", "SCT", "Post-operative"),
}
SURGERY = CodedConcept("387713003", "SCT", "Surgical procedure")

# Units.
PERCENT = CodedConcept("%", "UCUM", "Percent")
DAY = CodedConcept("d", "UCUM", "day")

# Why there is no number: CID 42.
QUALIFIERS = {
    AbstentionKind.NOT_ATTEMPTED: CodedConcept("114007", "DCM", "Measurement not attempted"),
    AbstentionKind.INDETERMINATE: CodedConcept("114011", "DCM", "Value indeterminate"),
    AbstentionKind.FAILURE: CodedConcept("114006", "DCM", "Measurement failure"),
}


def private(value: str, meaning: str) -> CodedConcept:
    """Return a code of the project's own scheme."""
    return CodedConcept(value, PRIVATE_SCHEME, meaning)


SYNTHETIC_MODEL = private("SYNTHETIC_MODEL", "SYNTHETIC MODEL - NOT FOR CLINICAL USE")
NO_CATEGORY = private("NO_CATEGORY", "No category: the AI gave no answer")
SALIENCY_MAP = private("SALIENCY_MAP", "AI saliency map (not a lesion outline)")
SUMMARY_PAGE = private("SUMMARY_PAGE", "AI summary page")
PARAMETRIC_MAP = private("SALIENCY_VALUES", "AI saliency as a parametric map (not a lesion outline)")
SELECTION = private("SELECTION", "Selection of the scans: remarks and exclusions")
SERIES_ROLE = private("SERIES_ROLE", "What the series was used as")


def private_scheme() -> CodingSchemeIdentificationItem:
    """Return who answers for the private codes (PS3.3 C.12.1); the scheme has no object identifier of its own."""
    return CodingSchemeIdentificationItem(
        designator=PRIVATE_SCHEME,
        name="Temporal glioma AI result codes",
        responsible_organization="temporal-dicom-node project",
    )

"""The DICOM attributes that rules and gates may ask about: what the reader keeps of an instance, and nothing else.

Enhanced MR functional groups come under their classic keywords. Private attributes are left out on purpose: archives
drop them, and then the scanner's copy and the archive's copy of one instance would not be the same input.
"""

from __future__ import annotations

NUMBERS = (
    "EchoTime",
    "RepetitionTime",
    "InversionTime",
    "FlipAngle",
    "EchoTrainLength",
    "NumberOfAverages",
    "EchoNumbers",
    "MagneticFieldStrength",
    "SliceThickness",
    "SpacingBetweenSlices",
    "NumberOfFrames",
    "AcquisitionNumber",
    "SeriesNumber",
    "DiffusionBValue",
    "TemporalPositionIdentifier",
    "NumberOfTemporalPositions",
    "ImagesInAcquisition",
    "ContrastBolusVolume",
    "ContrastBolusTotalDose",
    "SamplesPerPixel",
)
TEXTS = (
    "Modality",
    "ImageType",
    "SeriesDescription",
    "ProtocolName",
    "ScanningSequence",
    "SequenceVariant",
    "ScanOptions",
    "SequenceName",
    "PulseSequenceName",
    "MRAcquisitionType",
    "AngioFlag",
    "InversionRecovery",
    "EchoPulseSequence",
    "EchoPlanarPulseSequence",
    "SpectrallySelectedSuppression",
    "AcquisitionContrast",
    "ComplexImageComponent",
    "VolumeBasedCalculationTechnique",
    "ContrastBolusAgent",
    "ContrastBolusAgentAdministered",
    "ContrastBolusRoute",
    "PhotometricInterpretation",
    "DerivationDescription",
)
CONTEXT = (  # useful to rules and gates, but archives fill or coerce them, so two copies may differ here
    "BodyPartExamined",
    "BurnedInAnnotation",
    "Manufacturer",
    "ManufacturerModelName",
    "SoftwareVersions",
    "PatientAge",
    "StudyDescription",
    "RequestedProcedurePriority",
    "RequestedProcedureDescription",
    "PerformedProcedureStepDescription",
    "StationName",
    "InstitutionName",
    "PatientPosition",
    "ReceiveCoilName",
    "ContributingEquipmentSequence",  # as the codes of what the equipment did (CID 7005): 109102, processing
    # where sites write when a patient was operated on
    "AdditionalPatientHistory",
    "AdmittingDiagnosesDescription",
    "PatientComments",
    "ReasonForStudy",
    "ReasonForTheRequestedProcedure",
    "RequestedProcedureComments",
    "StudyComments",
)

"""Write a volume as one Enhanced MR object with full functional groups. Source: PS3.3 A.36, C.8.13, C.7.6.16."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydicom.dataset import Dataset
from pydicom.sequence import Sequence as Items
from pydicom.tag import Tag
from pydicom.uid import EnhancedMRImageStorage

from inference.phantom.modules import Series, deterministic_uid, dicom_date, dicom_datetime, dicom_time, new_object
from inference.phantom.signal import Contrast
from inference.phantom.slices import Placed, SliceOrder, add_pixels, instance_order

if TYPE_CHECKING:
    from pathlib import Path

_STACK_ID, _IN_STACK_POSITION = Tag(0x00209056), Tag(0x00209057)
_FRAME_CONTENT = Tag(0x00209111)


def write_enhanced(placed: Placed, series: Series, folder: Path, *, order: SliceOrder) -> list[Path]:
    """Write one multi-frame file; frames lie in the file in the order asked for."""
    folder.mkdir(parents=True, exist_ok=True)
    frames = instance_order(placed.values.shape[0], order)
    ds = new_object(series, EnhancedMRImageStorage, "enhanced")
    _add_image(ds, series)
    _add_contrast_agent(ds, series)
    _add_dimensions(ds, series)
    ds.NumberOfFrames = len(frames)
    ds.SharedFunctionalGroupsSequence = Items([_shared_groups(placed, series)])
    ds.PerFrameFunctionalGroupsSequence = Items([_frame_groups(placed, series, z) for z in frames])
    add_pixels(ds, placed.values[frames])
    del ds.WindowCenter, ds.WindowWidth
    path = folder / f"EMR{series.number:03d}.dcm"
    ds.save_as(path, enforce_file_format=True)
    return [path]


def _item(**attributes: object) -> Dataset:
    """Return a sequence item of keyword attributes."""
    ds = Dataset()
    for keyword, value in attributes.items():
        setattr(ds, keyword, value)
    return ds


def _code(value: str, scheme: str, meaning: str) -> Dataset:
    return _item(CodeValue=value, CodingSchemeDesignator=scheme, CodeMeaning=meaning)


def _add_image(ds: Dataset, series: Series) -> None:
    """Add the Enhanced MR Image and Pulse Sequence modules."""
    sequence, machine = series.sequence, series.visit.scanner
    ds.ImageType = ["ORIGINAL", "PRIMARY", _acquisition_contrast(series), "NONE"]
    ds.InstanceNumber = 1
    ds.ContentDate, ds.ContentTime = dicom_date(series.started), dicom_time(series.started)
    ds.AcquisitionDateTime = dicom_datetime(series.started)
    ds.AcquisitionDuration = 240.0
    ds.AcquisitionNumber = 1
    ds.PixelPresentation = "MONOCHROME"
    ds.VolumetricProperties = "VOLUME"
    ds.VolumeBasedCalculationTechnique = "NONE"
    ds.ComplexImageComponent = "MAGNITUDE"
    ds.AcquisitionContrast = _acquisition_contrast(series)
    ds.BurnedInAnnotation, ds.LossyImageCompression = "NO", "00"
    ds.PresentationLUTShape = "IDENTITY"
    ds.ResonantNucleus = "1H"
    ds.KSpaceFiltering = "NONE"
    ds.MagneticFieldStrength = machine.field_t
    ds.ApplicableSafetyStandardAgency = "IEC"
    ds.ApplicableSafetyStandardDescription = "IEC 60601-2-33"
    ds.ContentQualification = "RESEARCH"
    ds.PulseSequenceName = series.words.sequence_name
    ds.MRAcquisitionType = "3D" if series.volumetric else "2D"
    gradient = sequence.contrast is Contrast.PREPARED_GRADIENT_ECHO
    ds.EchoPulseSequence = "GRADIENT" if gradient else "SPIN"
    if not gradient:
        ds.MultipleSpinEcho = "YES" if sequence.echo_train > 1 else "NO"
    ds.MultiPlanarExcitation = "NO"
    ds.PhaseContrast = "NO"
    ds.TimeOfFlightContrast = "NO"
    ds.SteadyStatePulseSequence = "NONE"
    ds.EchoPlanarPulseSequence = "NO"
    ds.SaturationRecovery = "NO"
    ds.SpectrallySelectedSuppression = "NONE"
    ds.OversamplingPhase = "NONE"
    ds.GeometryOfKSpaceTraversal = "RECTILINEAR"
    ds.RectilinearPhaseEncodeReordering = "LINEAR"
    ds.SegmentedKSpaceTraversal = "PARTIAL" if sequence.echo_train > 1 else "SINGLE"
    if series.volumetric:
        ds.CoverageOfKSpace = "FULL"
    ds.NumberOfKSpaceTrajectories = 1
    ds.AcquisitionContextSequence = Items([])


def _acquisition_contrast(series: Series) -> str:
    if series.name == "FLAIR":
        return "FLUID_ATTENUATED"
    return "T2" if series.name == "T2" else "T1"


def _add_contrast_agent(ds: Dataset, series: Series) -> None:
    """Add the Enhanced Contrast/Bolus module where an agent was given (PS3.3 C.7.6.4b)."""
    if not series.sequence.gadolinium:
        return
    agent = _code("C-B03F0", "SRT", "Gadolinium DTPA")
    agent.ContrastBolusAgentNumber = 1
    agent.ContrastBolusIngredientCodeSequence = Items([_code("C-17300", "SRT", "Gadolinium")])
    agent.ContrastBolusAdministrationRouteSequence = Items([_code("47625008", "SCT", "Intravenous route")])
    agent.ContrastBolusVolume = round(0.1 * float(ds.PatientWeight), 1)
    agent.ContrastBolusIngredientConcentration = 1.0
    agent.ContrastBolusIngredientOpaque = "NO"
    ds.ContrastBolusAgentSequence = Items([agent])


def _add_dimensions(ds: Dataset, series: Series) -> None:
    organization = deterministic_uid(*series.key, "dimensions")
    ds.DimensionOrganizationSequence = Items([_item(DimensionOrganizationUID=organization)])
    ds.DimensionIndexSequence = Items(
        [
            _item(
                DimensionOrganizationUID=organization,
                DimensionIndexPointer=pointer,
                FunctionalGroupPointer=_FRAME_CONTENT,
                DimensionDescriptionLabel=label,
            )
            for pointer, label in ((_STACK_ID, "Stack ID"), (_IN_STACK_POSITION, "In-Stack Position Number"))
        ]
    )


def _shared_groups(placed: Placed, series: Series) -> Dataset:
    """Return what all frames have in common."""
    x_mm, y_mm, z_mm = placed.spacing_mm
    sequence = series.sequence
    shared = Dataset()
    thickness = round(z_mm * (1.0 if series.volumetric else 0.9), 4)
    shared.PixelMeasuresSequence = Items(
        [
            _item(
                PixelSpacing=[round(y_mm, 6), round(x_mm, 6)],
                SliceThickness=thickness,
                SpacingBetweenSlices=round(z_mm, 6),
            )
        ]
    )
    shared.PlaneOrientationSequence = Items([_item(ImageOrientationPatient=placed.orientation)])
    region = _code("12738006", "SCT", "Brain")
    shared.FrameAnatomySequence = Items([_item(FrameLaterality="U", AnatomicRegionSequence=Items([region]))])
    shared.PixelValueTransformationSequence = Items([_item(RescaleIntercept=0, RescaleSlope=1, RescaleType="US")])
    shared.FrameVOILUTSequence = Items([_item(WindowCenter=450, WindowWidth=900)])
    shared.MRImageFrameTypeSequence = Items(
        [
            _item(
                FrameType=["ORIGINAL", "PRIMARY", _acquisition_contrast(series), "NONE"],
                PixelPresentation="MONOCHROME",
                VolumetricProperties="VOLUME",
                VolumeBasedCalculationTechnique="NONE",
                ComplexImageComponent="MAGNITUDE",
                AcquisitionContrast=_acquisition_contrast(series),
            )
        ]
    )
    _add_timing(shared, series)
    shared.MREchoSequence = Items([_item(EffectiveEchoTime=sequence.te_ms)])
    if sequence.gadolinium:
        usage = _item(
            ContrastBolusAgentNumber=1, ContrastBolusAgentAdministered="YES", ContrastBolusAgentDetected="YES"
        )
        usage.ContrastBolusAgentPhase = "DELAYED"
        shared.ContrastBolusUsageSequence = Items([usage])
    _add_hardware(shared, placed)
    return shared


def _add_timing(shared: Dataset, series: Series) -> None:
    sequence = series.sequence
    exposure = _item(OperatingModeType="GRADIENT", OperatingMode="IEC_NORMAL")
    absorption = _item(SpecificAbsorptionRateDefinition="IEC_HEAD", SpecificAbsorptionRateValue=0.5)
    gradient_echo = sequence.contrast is Contrast.PREPARED_GRADIENT_ECHO
    shared.MRTimingAndRelatedParametersSequence = Items(
        [
            _item(
                RepetitionTime=sequence.tr_ms,
                FlipAngle=sequence.flip_deg,
                EchoTrainLength=1 if gradient_echo else sequence.echo_train,
                RFEchoTrainLength=0 if gradient_echo else sequence.echo_train,
                GradientEchoTrainLength=1 if gradient_echo else 0,
                GradientOutputType="DB_DT",
                GradientOutput=20.0,
                OperatingModeSequence=Items([exposure]),
                SpecificAbsorptionRateSequence=Items([absorption]),
            )
        ]
    )
    modifier = _item(
        InversionRecovery="YES" if sequence.ti_ms is not None else "NO",
        FlowCompensation="NONE",
        Spoiling="RF" if gradient_echo else "NONE",
        T2Preparation="NO",
        SpectrallySelectedExcitation="NONE",
        SpatialPresaturation="NONE",
        PartialFourier="NO",
        ParallelAcquisition="NO",
    )
    if sequence.ti_ms is not None:
        modifier.InversionTimes = [sequence.ti_ms]
    shared.MRModifierSequence = Items([modifier])


def _add_hardware(shared: Dataset, placed: Placed) -> None:
    """Add coils, averages and the field of view."""
    rows, columns = placed.values.shape[1:]
    x_mm, y_mm, _ = placed.spacing_mm
    shared.MRFOVGeometrySequence = Items(
        [
            _item(
                InPlanePhaseEncodingDirection="ROW",
                MRAcquisitionFrequencyEncodingSteps=rows,
                MRAcquisitionPhaseEncodingStepsInPlane=columns,
                MRAcquisitionPhaseEncodingStepsOutOfPlane=1,
                PercentSampling=100,
                PercentPhaseFieldOfView=round(100 * columns * x_mm / (rows * y_mm), 3),
            )
        ]
    )
    shared.MRAveragesSequence = Items([_item(NumberOfAverages=1)])
    shared.MRImagingModifierSequence = Items(
        [
            _item(
                MagnetizationTransfer="NONE",
                BloodSignalNulling="NO",
                Tagging="NONE",
                PixelBandwidth=200,
                TransmitterFrequency=123.0,
            )
        ]
    )
    element = _item(MultiCoilElementName="H1", MultiCoilElementUsed="YES")
    shared.MRReceiveCoilSequence = Items(
        [
            _item(
                ReceiveCoilName="Head",
                ReceiveCoilManufacturerName="",
                ReceiveCoilType="MULTICOIL",
                QuadratureReceiveCoil="NO",
                MultiCoilDefinitionSequence=Items([element]),
            )
        ]
    )
    shared.MRTransmitCoilSequence = Items(
        [_item(TransmitCoilName="Body", TransmitCoilManufacturerName="", TransmitCoilType="BODY")]
    )


def _frame_groups(placed: Placed, series: Series, z: int) -> Dataset:
    """Return what is a frame's own: its place."""
    frame = Dataset()
    content = _item(
        FrameReferenceDateTime=dicom_datetime(series.started),
        FrameAcquisitionDateTime=dicom_datetime(series.started),
        FrameAcquisitionDuration=240000.0,
        FrameAcquisitionNumber=1,
        StackID="1",
        InStackPositionNumber=z + 1,
        DimensionIndexValues=[1, z + 1],
    )
    frame.FrameContentSequence = Items([content])
    frame.PlanePositionSequence = Items([_item(ImagePositionPatient=placed.position_mm(z))])
    return frame

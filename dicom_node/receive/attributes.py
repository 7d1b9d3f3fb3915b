"""Read the attributes that decide role and time from a classic or an enhanced MR object.

Enhanced MR keeps them in functional groups under other names; here they get the classic keywords, so that one set
of rules serves both. A value that differs between frames becomes the tuple of its distinct values.
"""

from __future__ import annotations

import math
from datetime import date, time
from typing import TYPE_CHECKING

from pydicom.multival import MultiValue
from pydicom.sequence import Sequence as DicomSequence
from pydicom.valuerep import DA, DT, TM

from dicom_node.timeline import keywords

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pydicom.dataset import Dataset

    from dicom_node.timeline.model import Value

MAX_DISTINCT = 32  # more distinct values than this decide nothing; the smallest and largest are kept

NUMBERS, TEXTS, CONTEXT = keywords.NUMBERS, keywords.TEXTS, keywords.CONTEXT
# Enhanced keyword -> classic keyword (PS3.3 C.8.13.4, C.8.13.5, C.7.6.16.2)
ENHANCED = {
    "EffectiveEchoTime": "EchoTime",
    "InversionTimes": "InversionTime",
    "RFEchoTrainLength": "EchoTrainLength",
    "FrameType": "ImageType",
    "TemporalPositionIndex": "TemporalPositionIdentifier",
    "FrameAcquisitionNumber": "AcquisitionNumber",
}
ACQUIRED_FROM = ("AcquisitionDate", "SeriesDate", "StudyDate")  # each with its ...Time


def read_attributes(ds: Dataset) -> dict[str, Value]:
    """Collect the deciding attributes under their classic keywords; absent and empty ones are left out."""
    found: dict[str, set[str | float]] = {}
    attributes = {key: value for key in (*NUMBERS, *TEXTS, *CONTEXT) if (value := _read(ds, key)) is not None}
    for group in functional_groups(ds):
        for keyword, value in _group_values(group):
            found.setdefault(keyword, set()).update(value if isinstance(value, tuple) else (value,))
    frame_types = {str(each) for each in found.pop("ImageType", ())}
    attributes |= {keyword: _distinct(values) for keyword, values in found.items() if values}
    if frame_types:
        attributes["ImageType"] = _image_type(attributes.get("ImageType", ()), frame_types)
    _name_enhanced_sequence(attributes)
    if (agent := _contrast_agent(ds)) and "ContrastBolusAgent" not in attributes:
        attributes["ContrastBolusAgent"] = agent
    if purposes := _equipment_purposes(ds):
        attributes["ContributingEquipmentSequence"] = purposes
    return attributes


def functional_groups(ds: Dataset) -> Iterator[Dataset]:
    """Yield the shared functional groups, then those of each frame (nothing for a classic object)."""
    for keyword in ("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"):
        yield from ds.get(keyword) or ()


def read_acquired(ds: Dataset) -> tuple[date | None, time | None, str]:
    """Return day, time and the attribute they come from, by DESIGN's order of preference.

    AcquisitionDateTime first, else Acquisition, Series, Study date with its own time; the day of an enhanced object
    that has none of the first two is that of its earliest frame.
    """
    moments = [moment for each in functional_groups(ds) for moment in _frame_moments(each)]
    if moment := _date_time(ds, "AcquisitionDateTime"):
        return (*moment, "AcquisitionDateTime")
    if moments and _day(ds, "AcquisitionDate") is None:
        return (*min(moments), "FrameAcquisitionDateTime")
    for keyword in ACQUIRED_FROM:
        if day := _day(ds, keyword):
            return day, _time(ds, keyword.replace("Date", "Time")), keyword
    return None, None, ""


def _group_values(group: Dataset) -> Iterator[tuple[str, Value]]:
    """Yield (classic keyword, value) of one functional group item, looking one sequence deep."""
    for element in group:
        if element.VR != "SQ" or not isinstance(element.value, DicomSequence):
            continue
        for item in element.value:
            for keyword in (*NUMBERS, *TEXTS, *ENHANCED):
                if (value := _read(item, keyword)) is not None:
                    yield ENHANCED.get(keyword, keyword), value


def _image_type(told: Value | tuple[()], frame_types: set[str]) -> tuple[str, ...]:
    """Append to the object's Image Type what only its frames say; the object may say no more than MIXED."""
    values = tuple(str(each) for each in (told if isinstance(told, tuple) else (told,)))
    return values + tuple(sorted(frame_types - set(values)))


def _name_enhanced_sequence(attributes: dict[str, Value]) -> None:
    """Say in Scanning Sequence what enhanced MR says in Echo Pulse Sequence, EPI and Inversion Recovery."""
    if "ScanningSequence" in attributes or "EchoPulseSequence" not in attributes:
        return
    names = {"SPIN": ("SE",), "GRADIENT": ("GR",), "BOTH": ("SE", "GR")}.get(str(attributes["EchoPulseSequence"]), ())
    names += ("EP",) if attributes.get("EchoPlanarPulseSequence") == "YES" else ()
    names += ("IR",) if attributes.get("InversionRecovery") == "YES" else ()
    attributes["ScanningSequence"] = tuple(names)
    if "SequenceName" not in attributes and "PulseSequenceName" in attributes:
        attributes["SequenceName"] = attributes["PulseSequenceName"]


def _contrast_agent(ds: Dataset) -> str:
    """Name the first coded agent (PS3.3 C.7.6.4b); enhanced MR knows no other place for it."""
    for item in ds.get("ContrastBolusAgentSequence") or ():
        if text := _clean(item.get("CodeMeaning")) or _clean(item.get("CodeValue")):
            return text
    return ""


def _equipment_purposes(ds: Dataset) -> tuple[str, ...]:
    """Return what other equipment did to the object, as the codes of PS3.16 CID 7005 (PS3.3 C.12.1.1.5)."""
    items = ds.get("ContributingEquipmentSequence") or ()
    codes = (code for item in items for code in item.get("PurposeOfReferenceCodeSequence") or ())
    return tuple(sorted({text for code in codes if (text := _clean(code.get("CodeValue")))}))


def _read(ds: Dataset, keyword: str) -> Value | None:
    """Return a plain value, several values as a tuple, None if absent, empty or not of its kind."""
    value = ds.get(keyword)
    if value is None or isinstance(value, DicomSequence):
        return None
    several = tuple(value) if isinstance(value, MultiValue | list | tuple) else (value,)
    if keyword in NUMBERS or ENHANCED.get(keyword) in NUMBERS:
        numbers = tuple(number for each in several if (number := _number(each)) is not None)
        return numbers[0] if len(numbers) == 1 else numbers or None
    texts = tuple(text for each in several if (text := _clean(each)))
    if keyword in {"ImageType", "FrameType"}:
        return texts or None
    return texts[0] if len(texts) == 1 else texts or None


def _number(value: object) -> float | None:
    try:
        number = float(str(value))
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def _clean(value: object) -> str:
    return "" if value is None else str(value).replace("\0", "").strip()


def _distinct(values: set[str | float]) -> Value:
    numbers = sorted(each for each in values if not isinstance(each, str))
    if numbers:
        kept = numbers if len(numbers) <= MAX_DISTINCT else [numbers[0], numbers[-1]]
        return kept[0] if len(kept) == 1 else tuple(kept)
    texts = sorted(each for each in values if isinstance(each, str))[:MAX_DISTINCT]
    return texts[0] if len(texts) == 1 else tuple(texts)


def _frame_moments(group: Dataset) -> Iterator[tuple[date, time]]:
    for item in group.get("FrameContentSequence") or ():
        moment = _date_time(item, "FrameAcquisitionDateTime") or _date_time(item, "FrameReferenceDateTime")
        if moment and moment[1] is not None:
            yield moment[0], moment[1]


def _date_time(ds: Dataset, keyword: str) -> tuple[date, time | None] | None:
    """Read a DT as the scanner's own day and clock; an offset from UTC is dropped, not applied."""
    text = _clean(ds.get(keyword))
    if len(text) < 8 or not text[:8].isdigit():
        return None
    try:
        moment = DT(text)
    except ValueError:
        return None
    return moment.date(), moment.time() if text[8:10].isdigit() else None


def _day(ds: Dataset, keyword: str) -> date | None:
    try:
        day = DA(_clean(ds.get(keyword)).replace(".", "")[:8])
    except ValueError:
        return None
    return None if day is None else date(day.year, day.month, day.day)


def _time(ds: Dataset, keyword: str) -> time | None:
    try:
        moment = TM(_clean(ds.get(keyword)).replace(":", ""))
    except ValueError:
        return None
    return None if moment is None else time(moment.hour, moment.minute, moment.second, moment.microsecond)

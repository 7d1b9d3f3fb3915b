"""When something was acquired: which attribute is believed, and what an impossible one is worth."""

from __future__ import annotations

from datetime import date, time

import pytest
from pydicom import DataElement, Dataset
from pydicom.config import IGNORE
from pydicom.datadict import dictionary_VR
from pydicom.sequence import Sequence as Items
from pydicom.tag import Tag

from dicom_node.receive.attributes import read_acquired

DAY = date(2025, 3, 14)


def _object(**attributes: str) -> Dataset:
    """Return what a file may hold, legal or not."""
    ds = Dataset()
    for keyword, value in attributes.items():
        tag = Tag(keyword)
        ds.add(DataElement(tag, dictionary_VR(tag), value, validation_mode=IGNORE))
    return ds


def _enhanced(*moments: str, keyword: str = "FrameAcquisitionDateTime", **attributes: str) -> Dataset:
    ds = _object(**attributes)
    frames = []
    for moment in moments:
        frame = Dataset()
        frame.FrameContentSequence = Items([_object(**{keyword: moment})])
        frames.append(frame)
    ds.PerFrameFunctionalGroupsSequence = Items(frames)
    return ds


@pytest.mark.parametrize(
    ("ds", "expected"),
    [
        (
            _object(AcquisitionDateTime="20250314134000.250000"),
            (DAY, time(13, 40, 0, 250000), "AcquisitionDateTime"),
        ),
        (_object(AcquisitionDateTime="20250314233000-0500"), (DAY, time(23, 30), "AcquisitionDateTime")),
        (_object(AcquisitionDateTime="20250314003000+1400"), (DAY, time(0, 30), "AcquisitionDateTime")),
        (_object(AcquisitionDateTime="20250314"), (DAY, None, "AcquisitionDateTime")),
        (
            _object(AcquisitionDateTime="2025", AcquisitionDate="20250314", AcquisitionTime="1340"),
            (DAY, time(13, 40), "AcquisitionDate"),
        ),
        (
            _object(AcquisitionDateTime="20250230120000", AcquisitionDate="20250314"),
            (DAY, None, "AcquisitionDate"),
        ),
        (_object(AcquisitionDate="20250314", SeriesTime="134000"), (DAY, None, "AcquisitionDate")),
        (_object(AcquisitionDate="2025.03.14", AcquisitionTime="13:40:00"), (DAY, time(13, 40), "AcquisitionDate")),
        (_object(AcquisitionDate="20250314", AcquisitionTime="2540"), (DAY, None, "AcquisitionDate")),
        (_object(AcquisitionDate="00000000", SeriesDate="20250314"), (DAY, None, "SeriesDate")),
        (_object(AcquisitionDate="20251301", SeriesDate="", StudyDate="20250314"), (DAY, None, "StudyDate")),
        (_object(StudyDate="20250314", StudyTime="08"), (DAY, time(8), "StudyDate")),
        (_object(StudyDate="unknown"), (None, None, "")),
        (_object(), (None, None, "")),
        (
            _enhanced("20250314134100", "20250314134000", StudyDate="20240101"),
            (DAY, time(13, 40), "FrameAcquisitionDateTime"),
        ),
        (_enhanced("20250315001000", "20250314235000"), (DAY, time(23, 50), "FrameAcquisitionDateTime")),
        (
            _enhanced("20250314134000", keyword="FrameReferenceDateTime"),
            (DAY, time(13, 40), "FrameAcquisitionDateTime"),
        ),
        (
            _enhanced("20250314134100", AcquisitionDateTime="20250314133000"),
            (DAY, time(13, 30), "AcquisitionDateTime"),
        ),
        (_enhanced("20250314", "nonsense", StudyDate="20250313"), (date(2025, 3, 13), None, "StudyDate")),
    ],
    ids=[
        "date-time",
        "offset west is dropped",
        "offset east is dropped",
        "date-time without time",
        "date-time that is only a year",
        "date-time of no such day",
        "the time of another level is not borrowed",
        "old separators",
        "impossible time",
        "zeros for a date",
        "thirteenth month",
        "study date and hour",
        "a word",
        "nothing",
        "enhanced: the earliest frame before the study date",
        "enhanced: across midnight",
        "enhanced: reference date-time",
        "enhanced: the object's own date-time first",
        "enhanced: frames that tell no time",
    ],
)
def test_the_day_the_time_and_the_attribute_they_come_from(ds, expected) -> None:
    """The scanner's own day and clock; what is impossible says nothing, and the next attribute is asked."""
    assert read_acquired(ds) == expected

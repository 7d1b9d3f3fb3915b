"""The attributes of a colour capture that its pixels decide, and of the images that it was derived from."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydicom import Dataset

if TYPE_CHECKING:
    from collections.abc import Iterable

    import numpy as np
    from numpy.typing import NDArray

    from inference.results import SourceSlice


def add_true_colour_pixels(ds: Dataset, pixels: NDArray[np.uint8]) -> None:
    """Fill in the Image Pixel attributes from RGB pixels of shape (..., H, W, 3) (PS3.3 C.7.6.3)."""
    ds.SamplesPerPixel = 3
    ds.PhotometricInterpretation = "RGB"
    ds.PlanarConfiguration = 0
    ds.Rows, ds.Columns = pixels.shape[-3:-1]
    ds.BitsAllocated = ds.BitsStored = 8
    ds.HighBit = 7
    ds.PixelRepresentation = 0
    ds.LossyImageCompression = "00"
    ds.BurnedInAnnotation = "YES"  # a date is burned in (PS3.15 E.1 counts it as identifying)
    data = pixels.tobytes()
    ds.PixelData = data + b"\0" * (len(data) % 2)


def source_images(slices: Iterable[SourceSlice]) -> list[Dataset]:
    """Return the Source Image Sequence: each instance once, with the frames used of a multi-frame one."""
    frames: dict[tuple[str, str], list[int]] = {}
    for each in slices:
        numbers = frames.setdefault((each.sop_class_uid, each.sop_instance_uid), [])
        if each.frame is not None:
            numbers.append(each.frame)
    items = []
    for (sop_class_uid, instance_uid), numbers in frames.items():
        item = Dataset()
        item.ReferencedSOPClassUID = sop_class_uid
        item.ReferencedSOPInstanceUID = instance_uid
        if numbers:
            item.ReferencedFrameNumber = numbers
        items.append(item)
    return items

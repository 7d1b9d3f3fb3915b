"""What we offer to receive: SOP classes of the configuration, in the transfer syntaxes that can be decoded here.

Accepting is not decoding: the listener stores bytes. But an image that nobody here could ever decode is better
refused at the door, where the sender sees it and can send another transfer syntax.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from pydicom.pixels.decoders.base import get_decoder
from pydicom.uid import (
    JPEG2000,
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    JPEGLSNearLossless,
    RLELossless,
)

from dicom_node.settings import STORAGE_SOP_CLASSES

if TYPE_CHECKING:
    from dicom_node.settings import Receive

NATIVE: Final = (
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    ExplicitVRBigEndian,
    DeflatedExplicitVRLittleEndian,
)
COMPRESSED: Final = (
    JPEGLosslessSV1,
    JPEGLossless,
    JPEGLSLossless,
    JPEGLSNearLossless,
    JPEG2000Lossless,
    JPEG2000,
    RLELossless,
)


def decodable() -> tuple[UID, ...]:
    """Return the compressed transfer syntaxes for which a decoder is installed and loads."""
    return tuple(syntax for syntax in COMPRESSED if get_decoder(syntax).is_available)


def storage_contexts(receive: Receive) -> list[tuple[str, tuple[UID, ...]]]:
    """Return (SOP class UID, transfer syntaxes) for every storage class we accept; documents hold no pixels."""
    images = (*NATIVE, *decodable())
    return [
        (STORAGE_SOP_CLASSES[keyword], NATIVE if "SR" in keyword or "KeyObject" in keyword else images)
        for keyword in receive.sop_classes
    ]

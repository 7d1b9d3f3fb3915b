"""Lossless JPEG-LS for colour captures, where the receiver takes it: a fifth of the bytes, and the same pixels."""

from __future__ import annotations

from copy import deepcopy
from typing import TYPE_CHECKING

from pydicom.uid import JPEGLSLossless

from sr_templates.headers import to_bytes

if TYPE_CHECKING:
    from pydicom import Dataset


def compressed(ds: Dataset) -> bytes:
    """Return an uncompressed colour capture as a PS3.10 file in JPEG-LS Lossless; the object itself is not touched.

    Lossless compression makes no new instance: the SOP Instance UID and every pixel stay. Equal objects give equal
    bytes, so that a delivery that is repeated sends what was sent before.

    Source: PS3.5 8.2.3 (JPEG-LS), PS3.3 C.12.4.1.1 (when a new SOP Instance UID is needed).
    """
    copy = deepcopy(ds)
    copy.compress(JPEGLSLossless, encoding_plugin="pyjpegls", generate_instance_uid=False)
    return to_bytes(copy)

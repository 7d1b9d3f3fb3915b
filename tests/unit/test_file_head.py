"""The head of a stored file, written without pydicom, is what pydicom would write."""

from __future__ import annotations

import pytest
from pydicom.uid import UID, ExplicitVRLittleEndian, JPEG2000Lossless, MRImageStorage
from pynetdicom.dsutils import create_file_meta, encode_file_meta

from dicom_node.receive.file_meta import file_head


@pytest.mark.parametrize("uid", ["2.25.1", "2.25.12", "1." + "2" * 62])
@pytest.mark.parametrize("title", ["SCANNER", "SCANNER1"])
@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, JPEG2000Lossless])
def test_the_head_is_what_pydicom_writes(uid: str, syntax: UID, title: str) -> None:
    """Byte for byte, for values of odd and of even length (PS3.10 7.1)."""
    meta = create_file_meta(sop_class_uid=MRImageStorage, sop_instance_uid=UID(uid), transfer_syntax=syntax)
    meta.SendingApplicationEntityTitle = title
    head = file_head(
        sop_class_uid=MRImageStorage, sop_instance_uid=uid, transfer_syntax_uid=syntax, calling_ae_title=title
    )
    assert head == bytes(128) + b"DICM" + encode_file_meta(meta)

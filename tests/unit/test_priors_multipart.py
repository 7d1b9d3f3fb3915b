"""A multipart answer is read part by part; one that breaks off yields no cut part."""

from __future__ import annotations

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from dicom_node.errors import UpstreamError
from dicom_node.priors.archive import CannotBeAsked
from dicom_node.priors.multipart import boundary_of, parts

BOUNDARY = b"BOUNDARY"


def message(*contents: bytes, headers: bytes = b"Content-Type: application/dicom\r\n") -> bytes:
    """Return a multipart body."""
    begun = b"".join(b"\r\n--" + BOUNDARY + b"\r\n" + headers + b"\r\n" + content for content in contents)
    return begun.removeprefix(b"\r\n") + b"\r\n--" + BOUNDARY + b"--\r\n"


def cut(body: bytes, size: int) -> list[bytes]:
    """Cut a body into chunks."""
    return [body[start : start + size] for start in range(0, len(body), size)]


@given(st.lists(st.binary(max_size=60), max_size=5), st.integers(1, 40))
def test_parts_come_out_as_they_were_however_the_message_is_cut(contents: list[bytes], size: int) -> None:
    """Boundaries and headers may lie across chunks; contents may look like line ends and headers."""
    assume(not any(b"--" + BOUNDARY in content for content in contents))
    assert list(parts(cut(message(*contents), size), BOUNDARY)) == contents


@given(st.integers(0, 200), st.integers(1, 40))
def test_a_message_that_breaks_off_raises_and_yields_only_whole_parts(kept: int, size: int) -> None:
    """However much came, a part without the delimiter after it does not count."""
    contents = [b"A" * 30, b"\r\n\r\n" * 8, b"--BOUND" * 5]
    body = message(*contents)
    end = len(body) - len(b"--\r\n")
    came = []
    with pytest.raises(UpstreamError, match="broke off"):
        came.extend(parts(cut(body[: min(kept, end)], size), BOUNDARY))
    assert came == contents[: len(came)]


def test_a_part_without_headers_keeps_its_content() -> None:
    """RFC 2046 lets a part have none."""
    assert list(parts([message(b"content", headers=b"")], BOUNDARY)) == [b"content"]


@pytest.mark.parametrize(
    ("content_type", "boundary"),
    [
        ('multipart/related; type="application/dicom"; boundary=abc', b"abc"),
        ('Multipart/Related; boundary="a b=c"; type="application/dicom"', b"a b=c"),
    ],
)
def test_the_boundary_is_read_from_the_content_type(content_type: str, boundary: bytes) -> None:
    """Quoted or not, wherever it stands."""
    assert boundary_of(content_type) == boundary


@pytest.mark.parametrize("content_type", ["", "text/html", "application/dicom", "multipart/related"])
def test_another_content_is_not_taken_for_instances(content_type: str) -> None:
    """A login page is no series."""
    with pytest.raises(CannotBeAsked, match="expected a multipart answer"):
        boundary_of(content_type)

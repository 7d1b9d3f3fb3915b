"""Read a multipart/related message part by part as it comes, so that a series never lies in memory as a whole.

A part counts only when the delimiter after it was seen: a message that breaks off yields no cut instance and raises.
"""

from __future__ import annotations

from email.message import Message
from typing import TYPE_CHECKING, Final

from dicom_node.errors import UpstreamError
from dicom_node.priors.archive import CannotBeAsked

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

BLANK_LINE: Final = b"\r\n\r\n"


def boundary_of(content_type: str) -> bytes:
    """Return the boundary of a multipart message.

    Raises:
        CannotBeAsked: if it is none.
    """
    header = Message()
    header["Content-Type"] = content_type
    boundary = header.get_param("boundary")
    if header.get_content_maintype() != "multipart" or not isinstance(boundary, str) or not boundary:
        msg = f"expected a multipart answer with a boundary, found {header.get_content_type()}"
        raise CannotBeAsked(msg)
    return boundary.encode("latin-1", "replace")


def parts(chunks: Iterable[bytes], boundary: bytes) -> Iterator[bytes]:
    """Yield the content of each part, without its headers.

    Raises:
        UpstreamError: if the message ends before its closing delimiter.

    Source: RFC 2046 5.1.1.
    """
    delimiter = b"\r\n--" + boundary
    buffer = bytearray(b"\r\n")  # the first delimiter may stand at the very beginning
    searched, opened = 0, False
    for chunk in chunks:
        buffer += chunk
        while (at := buffer.find(delimiter, searched)) >= 0 and len(buffer) >= at + len(delimiter) + 2:
            if opened:  # what stands before the first delimiter is a preamble
                yield _content(bytes(buffer[:at]))
            after = at + len(delimiter)
            if buffer[after : after + 2] == b"--":
                return
            del buffer[:after]
            searched, opened = 0, True
        searched = max(0, len(buffer) - len(delimiter) - 2)
    msg = "the answer broke off before its end"
    raise UpstreamError(msg)


def _content(part: bytes) -> bytes:
    """Cut the headers off: a part may have none, and then begins with the end of the delimiter's line."""
    _headers, blank, content = part.partition(BLANK_LINE)
    return content if blank else part.removeprefix(b"\r\n")

"""The statuses we answer a C-STORE with (PS3.4 B.2.3), and the reasons we refuse an association for (PS3.8 9.3.4)."""

from __future__ import annotations

from typing import Final, NamedTuple

SUCCESS: Final = 0x0000
OUT_OF_RESOURCES: Final = 0xA700  # disk or database: the sender keeps the object and tries again
CANNOT_UNDERSTAND: Final = 0xC000  # not something that could be stored at all

NAMES: Final = {
    SUCCESS: "success",
    OUT_OF_RESOURCES: "out-of-resources",
    CANNOT_UNDERSTAND: "cannot-understand",
}


class Rejection(NamedTuple):
    """An A-ASSOCIATE-RJ: result, source, diagnostic, and our name of the reason."""

    result: int
    source: int
    diagnostic: int
    reason: str


UNKNOWN_CALLING_AE: Final = Rejection(1, 1, 3, "unknown-calling-ae-title")
WRONG_ADDRESS: Final = Rejection(1, 1, 3, "calling-ae-title-from-unlisted-address")
UNKNOWN_CALLED_AE: Final = Rejection(1, 1, 7, "unknown-called-ae-title")
DISK_LOW: Final = Rejection(2, 3, 1, "free-disk-below-watermark")
UNDECIDED: Final = Rejection(2, 3, 1, "could-not-be-judged")
TOO_MANY: Final = Rejection(2, 3, 2, "too-many-associations")

"""The statuses we answer with, and the reasons we refuse an association for (PS3.8 9.3.4).

C-STORE: PS3.4 B.2.3. N-EVENT-REPORT and N-ACTION of storage commitment: PS3.7 10.1.1.1.8 and 10.1.4.1.10.
"""

from __future__ import annotations

from typing import Final, NamedTuple

SUCCESS: Final = 0x0000
OUT_OF_RESOURCES: Final = 0xA700  # disk or database: the sender keeps the object and tries again
ANOTHER_CLASS: Final = 0xA900  # than what was agreed on for the context it came in
CANNOT_UNDERSTAND: Final = 0xC000  # not something that could be stored at all

PROCESSING_FAILURE: Final = 0x0110  # N-EVENT-REPORT: no database; the archive keeps it and tries again
NO_SUCH_EVENT_TYPE: Final = 0x0113
INVALID_ARGUMENT_VALUE: Final = 0x0115  # N-EVENT-REPORT: not about a transaction of ours, or no data set
NO_SUCH_SOP_CLASS: Final = 0x0118
UNRECOGNIZED_OPERATION: Final = 0x0211  # N-ACTION: we commit ourselves to nothing

NAMES: Final = {
    SUCCESS: "success",
    OUT_OF_RESOURCES: "out-of-resources",
    ANOTHER_CLASS: "data-set-does-not-match-sop-class",
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
WITHOUT_TLS: Final = Rejection(1, 1, 1, "plain-connection-where-tls-is-required")
WRONG_CERTIFICATE: Final = Rejection(1, 1, 3, "calling-ae-title-with-another-certificate")
UNKNOWN_CALLED_AE: Final = Rejection(1, 1, 7, "unknown-called-ae-title")
DISK_LOW: Final = Rejection(2, 3, 1, "free-disk-below-watermark")
UNDECIDED: Final = Rejection(2, 3, 1, "could-not-be-judged")
TOO_MANY: Final = Rejection(2, 3, 2, "too-many-associations")
TOO_MANY_OF_PEER: Final = Rejection(2, 3, 2, "too-many-associations-of-this-peer")
NO_RIGHT: Final = "no-right-to-"  # and the service: its presentation contexts were refused, nothing else

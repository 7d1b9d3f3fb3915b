"""HL7 v2 ADT messages as far as they tell who is who: updates (A08) and merges (A40, A34, A18), and their answers.

Bytes in, values out. Only MSH, PID and MRG are parsed: nothing else is our business, and parsing a long message whole
takes seconds. No message of an error quotes a value.

Source: HL7 v2.5.1 chapter 2 (control, 2.7 escapes, 2.15.8 MSH), chapter 3 (A08, A18, A34, A40; PID, MRG).
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final

from hl7apy.consts import VALIDATION_LEVEL
from hl7apy.exceptions import HL7apyException
from hl7apy.parser import parse_message

from dicom_node.errors import PeerError
from dicom_node.timeline.model import PatientFacts

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from datetime import datetime

UPDATES: Final = frozenset({"A08"})
MERGES: Final = frozenset({"A18", "A34", "A40"})
VERSIONS: Final = frozenset({"2.3", "2.3.1", "2.4", "2.5", "2.5.1", "2.6", "2.7", "2.8", "2.8.1", "2.8.2"})
CHARACTER_SETS: Final = {  # table 0211 -> Python
    "ASCII": "ascii", "UNICODE UTF-8": "utf-8", "UNICODE": "utf-8", "GB 18030-2000": "gb18030", "KS X 1001": "euc_kr",
    "CNS 11643-1992": "big5", "BIG-5": "big5", "ISO IR6": "ascii", "ISO IR14": "iso2022_jp_ext",
    "ISO IR87": "iso2022_jp_ext", "ISO IR159": "iso2022_jp_ext",
    **{f"8859/{number}": f"iso8859-{number}" for number in (1, 2, 3, 4, 5, 6, 7, 8, 9, 15)},
}  # fmt: skip
SEXES: Final = {"F": "F", "M": "M", "O": "O", "A": "O"}  # table 0001 -> PS3.3 C.7.1.1; unknown says nothing
SEPARATORS: Final = "|^~\\&"  # every sender's; others are allowed and not served
MOST_PARSED: Final = 32 * 1024  # characters of MSH, PID and MRG together
NOTHING: Final = '""'  # "delete the value", chapter 2.5.3


class Code(StrEnum):
    """Acknowledgment code, table 0008."""

    ACCEPTED = "AA"
    ERROR = "AE"  # the content, or we, are at fault
    REJECTED = "AR"  # such messages are not for us: type, event, processing ID, version


class Problem(PeerError):  # noqa: N818 - the name says what it is
    """Why a message is not accepted: the acknowledgment code, the error code of table 0357, and a text."""

    def __init__(self, code: Code, number: int, text: str) -> None:
        super().__init__(text)
        self.code = code
        self.number = number


@dataclass(frozen=True, slots=True, kw_only=True)
class Header:
    """What an answer has to repeat or turn around, as it stood in the message."""

    separators: str = SEPARATORS
    sending: tuple[str, str] = ("", "")  # application, facility
    receiving: tuple[str, str] = ("", "")
    event: str = ""  # the trigger event if we serve it, else empty
    control_id: str = ""
    processing_id: str = "P"
    version: str = "2.5"
    character_set: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Merge:
    """Two IDs, each (issuer, PatientID), said to be one patient."""

    retired: tuple[str, str]
    surviving: tuple[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Issuers:
    """How assigning authorities are named here: `default` where a message names none, `aliases` for other words."""

    default: str
    aliases: Mapping[str, str] = field(default_factory=dict)

    def of(self, authority: Sequence[str]) -> str:
        """Return the issuer that an HD stands for (CX.4): by an alias of all of it, else its name, else its ID."""
        whole = ("&".join(authority[:length]) for length in (3, 2))
        known = next((self.aliases[each] for each in whole if each in self.aliases), None)
        said = next((part for part in authority[:2] if part), self.default)
        return known or self.aliases.get(said, said)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Id:
    issuer: str
    patient_id: str
    kind: str  # identifier type code, table 0203

    @property
    def key(self) -> tuple[str, str]:
        return self.issuer, self.patient_id


def read_header(content: bytes) -> Header:
    """Read the header of a message.

    Raises:
        Problem: if there is none.
    """
    line = re.split(rb"[\r\n]", content, maxsplit=1)[0].decode("latin-1")
    if not line.startswith("MSH") or len(line) < 9:
        raise Problem(Code.REJECTED, 100, "expected a message that starts with MSH")
    fields = line[4:].split(line[3])
    if not fields[0]:
        raise Problem(Code.REJECTED, 102, "MSH-2: expected the encoding characters")
    fields += [""] * (18 - len(fields))
    kind = fields[7].split(fields[0][0])
    event = kind[1] if len(kind) > 1 and kind[0] == "ADT" and kind[1] in UPDATES | MERGES else ""
    return Header(
        separators=line[3] + fields[0],
        sending=(fields[1], fields[2]),
        receiving=(fields[3], fields[4]),
        event=event,
        control_id=fields[8],
        processing_id=fields[9].split(fields[0][0])[0],
        version=fields[10].split(fields[0][0])[0],
        character_set=fields[16].split(fields[0][1:2] or "~")[0].strip(),
    )


def read_message(content: bytes, header: Header, issuers: Issuers) -> list[Merge] | list[PatientFacts]:
    """Read what a message says of identities: merges, or demographics under each ID.

    Raises:
        Problem: if it is not for us, or does not say what such a message must say.
    """
    _check(header)
    segments = _segments(_decode(content, header))
    try:
        if header.event in MERGES:
            return _merges(segments, issuers)
        return [_said(key, segment) for segment in _all(segments, "PID") for key in _keys(segment, issuers)]
    except HL7apyException as error:
        raise Problem(Code.ERROR, 102, f"PID or MRG cannot be read: {type(error).__name__}") from error


def acknowledge(header: Header, problem: Problem | None, at: datetime, our_control_id: str) -> bytes:
    """Return the answer to a message.

    Source: HL7 v2.5.1 chapter 2.14.1 (ACK); 2.13.5 (ERR).
    """
    bar, component = header.separators[0], header.separators[1]
    code = problem.code if problem else Code.ACCEPTED
    version = header.version if header.version in VERSIONS else "2.5"
    lines = [
        [
            "MSH" + bar + header.separators[1:], *header.receiving, *header.sending, f"{at:%Y%m%d%H%M%S}", "",
            f"ACK{component}{header.event}{component}ACK" if header.event else "ACK", our_control_id,
            header.processing_id, version,
        ],
        ["MSA", code.value, header.control_id, *([str(problem)] if problem else [])],
    ]  # fmt: skip
    if problem:
        lines.append(["ERR", "", "", str(problem.number), "E", "", "", "", str(problem)])
    return "".join(bar.join(line) + "\r" for line in lines).encode("latin-1", "replace")


def _check(header: Header) -> None:
    if not header.event:
        text = f"expected ADT with one of the events {', '.join(sorted(UPDATES | MERGES))}"
        raise Problem(Code.REJECTED, 201, text)
    if header.processing_id not in {"P", ""}:
        raise Problem(Code.REJECTED, 202, "expected processing ID P: tests and training change nobody's identity")
    if header.version not in VERSIONS:
        raise Problem(Code.REJECTED, 203, f"expected an HL7 version of {', '.join(sorted(VERSIONS))}")
    if header.separators[:5] != SEPARATORS:
        raise Problem(Code.ERROR, 102, "MSH-1 and MSH-2: expected the delimiters |^~\\&")
    if not header.control_id:
        raise Problem(Code.ERROR, 101, "MSH-10 (message control ID) is missing")


def _decode(content: bytes, header: Header) -> str:
    """Decode by MSH-18; where it names nothing, UTF-8 if it is, else Latin-1 as DICOM toolkits do."""
    if header.character_set == "":
        try:
            return content.decode("utf-8")
        except UnicodeDecodeError:
            return content.decode("latin-1")
    name = CHARACTER_SETS.get(header.character_set)
    if name is None:
        raise Problem(Code.ERROR, 102, "MSH-18: unknown character set (table 0211)")
    try:
        return content.decode(name)
    except UnicodeDecodeError as error:
        raise Problem(Code.ERROR, 102, "the text is not in the character set that MSH-18 names") from error


def _segments(text: str) -> list[Any]:
    kept = [line for line in re.split(r"[\r\n]+", text) if line[:3] in {"MSH", "PID", "MRG"}]
    if sum(map(len, kept)) > MOST_PARSED:
        raise Problem(Code.ERROR, 102, f"MSH, PID and MRG are longer than {MOST_PARSED} characters together")
    try:
        parsed = parse_message("\r".join(kept), validation_level=VALIDATION_LEVEL.TOLERANT, find_groups=False)
    except HL7apyException as error:
        raise Problem(Code.ERROR, 102, f"cannot be read: {type(error).__name__}") from error
    return list(parsed.children)


def _all(segments: Iterable[Any], name: str) -> list[Any]:
    found = [each for each in segments if each.name == name]
    if not found:
        raise Problem(Code.ERROR, 100, f"expected a segment {name}, found none")
    return found


def _merges(segments: Sequence[Any], issuers: Issuers) -> list[Merge]:
    """Pair every MRG with the PID before it."""
    _all(segments, "MRG")
    merges: list[Merge] = []
    surviving: list[_Id] = []
    for segment in segments:
        if segment.name == "PID":
            surviving = _ids(segment.pid_3, issuers)
        elif segment.name == "MRG":
            merges += _pairs(_ids(segment.mrg_1, issuers), surviving)
    return merges


def _pairs(retired: Sequence[_Id], surviving: Sequence[_Id]) -> list[Merge]:
    """Say for every retired ID which one takes its place: that of the same authority and kind, else the first."""
    if not retired or not surviving:
        raise Problem(Code.ERROR, 101, "PID-3 or MRG-1 names no ID")
    pairs = []
    for each in retired:
        same = [other for other in surviving if other.issuer == each.issuer]
        alike = [other for other in same if other.kind == each.kind] or same or surviving[:1]
        if len({other.key for other in alike}) > 1:
            raise Problem(Code.ERROR, 204, "PID-3 names several IDs of the authority of MRG-1: which one survives?")
        if alike[0].key != each.key:
            pairs.append(Merge(retired=each.key, surviving=alike[0].key))
    return pairs


def _keys(segment: Any, issuers: Issuers) -> list[tuple[str, str]]:
    found = [each.key for each in _ids(segment.pid_3, issuers)]
    if not found:
        raise Problem(Code.ERROR, 101, "PID-3 names no ID")
    return found


def _ids(field: Iterable[Any], issuers: Issuers) -> list[_Id]:
    """Read the repetitions of a CX: ID, assigning authority (its name, else its universal ID), kind."""
    found = []
    for each in field:
        patient_id = _text(each, "cx_1")
        authority = issuers.of(_parts(each, "cx_4"))
        if patient_id:
            found.append(_Id(issuer=authority, patient_id=patient_id, kind=_text(each, "cx_5")))
    return found


def _said(key: tuple[str, str], segment: Any) -> PatientFacts:
    issuer, patient_id = key
    birth = _er7(segment, "pid_7")[:8]
    return PatientFacts(
        issuer=issuer,
        patient_id=patient_id,
        name=_name(list(segment.pid_5)),
        birth_date=birth if re.fullmatch(r"\d{8}", birth) else "",
        sex=SEXES.get(_er7(segment, "pid_8").strip(), ""),
    )


def _name(repetitions: Sequence[Any]) -> str:
    """Turn an XPN into a PN: the legal name, else the first; its ideographic and phonetic spelling as groups.

    Source: HL7 v2.5.1 2.A.88 (XPN: family, given, middle, suffix, prefix); PS3.5 6.2.1 (PN: prefix before suffix).
    """
    kinds = [_text(each, "xpn_7") for each in repetitions]
    wanted = "L" if "L" in kinds else (kinds[0] if kinds else "")
    groups: dict[str, str] = {}
    for each, kind in zip(repetitions, kinds, strict=True):
        if kind == wanted:
            groups.setdefault(_text(each, "xpn_8") or "A", _components(each))
    return "=".join(groups.get(spelling, "") for spelling in "AIP").rstrip("=")


def _components(name: Any) -> str:
    family = next(iter(_parts(name, "xpn_1")), "")
    given, middle, suffix, prefix = (_text(name, f"xpn_{number}") for number in (2, 3, 4, 5))
    parts = (re.sub(r"[\^=\\]", " ", part) for part in (family, given, middle, prefix, suffix))
    return "^".join(parts).rstrip("^")


def _text(element: Any, name: str) -> str:
    return "&".join(_parts(element, name)).strip("& ")


def _parts(element: Any, name: str) -> list[str]:
    """Return the subcomponents of a component as plain text."""
    return [_plain(part) for part in _er7(element, name).split("&")]


def _er7(element: Any, name: str) -> str:
    child = getattr(element, name)
    return "" if not child else str(child[0].to_er7())


def _plain(text: str) -> str:
    """Undo the escapes of delimiters; an escape that means layout or another character set says nothing of a name."""
    if text == NOTHING:
        return ""
    plain = {"F": "|", "S": "^", "T": "&", "R": "~", "E": "\\"}
    return re.sub(r"\\([^\\]*)\\", lambda found: plain.get(found[1], ""), text).strip(" ")

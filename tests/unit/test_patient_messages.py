"""HL7 v2 messages: who is who, in the hospital's dialect; what is not said plainly is refused with its reason."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest

from dicom_node.receive.hl7_messages import Code, Issuers, Merge, Problem, acknowledge, read_header, read_message
from dicom_node.timeline.model import PatientFacts

if TYPE_CHECKING:
    from collections.abc import Sequence

ADT = "MSH|^~\\&|ADT|HOSPITAL|NODE|RADIOLOGY|20260301120000||ADT^{event}^ADT_A01|MSG-1|P|2.5|||||DEU|{charset}"
PID = "PID|1||{ids}||{name}||19600102|{sex}"
AT = datetime(2026, 3, 1, 12, tzinfo=UTC)


def adt(event: str, *segments: str, charset: str = "UNICODE UTF-8") -> bytes:
    """Return a message as a registry sends it."""
    return "\r".join((ADT.format(event=event, charset=charset), f"EVN|{event}", *segments, "")).encode()


def read(content: bytes) -> Sequence[Merge | PatientFacts]:
    """Read a message whose header is good."""
    return read_message(content, read_header(content), Issuers(default="DEFAULT"))


def pid(ids: str = "4711^^^HOSPITAL^MR", name: str = "DOE^JANE", sex: str = "F") -> str:
    """Return a PID segment."""
    return PID.format(ids=ids, name=name, sex=sex)


def test_an_update_says_demographics_under_every_id() -> None:
    """PID-3 repeats: each ID with its assigning authority's name, its universal ID where it has no name, or ours."""
    found = read(adt("A08", pid("4711^^^HOSPITAL&1.2.3&ISO^MR~99^^^&1.2.840&ISO^NI~5^^^^MR~^^^EMPTY")))
    assert found == [
        PatientFacts(issuer=issuer, patient_id=patient_id, name="DOE^JANE", birth_date="19600102", sex="F")
        for issuer, patient_id in (("HOSPITAL", "4711"), ("1.2.840", "99"), ("DEFAULT", "5"))
    ]


@pytest.mark.parametrize("event", ["A40", "A34", "A18"])
def test_a_merge_says_which_id_takes_the_place_of_which(event) -> None:
    """MRG-1 is retired, PID-3 survives (chapter 3.3.40)."""
    assert read(adt(event, pid(), "MRG|0815^^^HOSPITAL^MR")) == [
        Merge(retired=("HOSPITAL", "0815"), surviving=("HOSPITAL", "4711"))
    ]


def test_a_message_may_merge_several_patients() -> None:
    """Each MRG belongs to the PID before it."""
    message = adt("A40", pid("1^^^H"), "PD1|x", "MRG|2^^^H", pid("3^^^H"), "MRG|4^^^H")
    assert [(each.retired[1], each.surviving[1]) for each in read(message)] == [("2", "1"), ("4", "3")]


@pytest.mark.parametrize(
    ("retired", "surviving", "pairs"),
    [
        ("2^^^A~9^^^B", "1^^^A~8^^^B", [("2", "1"), ("9", "8")]),
        ("2^^^A~8^^^B", "1^^^A~8^^^B", [("2", "1")]),
        ("2^^^A^MR", "7^^^A^VN~1^^^A^MR", [("2", "1")]),
        ("2^^^A~9^^^B", "1^^^A", [("2", "1"), ("9", "1")]),
        ("2^^^A", "1^^^C~8^^^B", [("2", "1")]),
        ("1^^^A", "1^^^A", []),
    ],
)
def test_ids_are_paired_by_authority_and_kind(retired, surviving, pairs) -> None:
    """A number of another authority never takes the place of one that has a partner."""
    found = read(adt("A40", pid(surviving), f"MRG|{retired}"))
    assert [(each.retired[1], each.surviving[1]) for each in found if isinstance(each, Merge)] == pairs


@pytest.mark.parametrize(
    ("xpn", "name"),
    [
        ("DOE^JANE^A^JR^DR", "DOE^JANE^A^DR^JR"),
        ("DOE^JANE^^^", "DOE^JANE"),
        ("VAN DYKE&VAN&DYKE^JANE", "VAN DYKE^JANE"),
        ("SMITH^JANE^^^^^M~DOE^JANE^^^^^L", "DOE^JANE"),
        ("山田^太郎^^^^^L^I~Yamada^Tarou^^^^^L^A~やまだ^たろう^^^^^L^P", "Yamada^Tarou=山田^太郎=やまだ^たろう"),
        ("山田^太郎^^^^^L^I", "=山田^太郎"),
        ("M\\T\\S^A\\S\\B\\H\\C", "M&S^A BC"),
        ('""', ""),
        ("", ""),
    ],
)
def test_a_name_is_turned_into_dicoms_order_and_groups(xpn, name) -> None:
    """XPN has the suffix before the prefix, PN after it; the legal name counts; escapes are undone."""
    (found,) = read(adt("A08", pid(name=xpn)))
    assert isinstance(found, PatientFacts)
    assert found.name == name


@pytest.mark.parametrize(("sex", "dicom"), [("F", "F"), ("M", "M"), ("O", "O"), ("A", "O"), ("U", ""), ("", "")])
def test_a_sex_is_said_in_dicoms_words(sex, dicom) -> None:
    """Unknown is not said."""
    (found,) = read(adt("A08", pid(sex=sex)))
    assert isinstance(found, PatientFacts)
    assert found.sex == dicom


@pytest.mark.parametrize(
    ("charset", "encoding", "name"),
    [
        ("UNICODE UTF-8", "utf-8", "قباني^لنزار"),
        ("8859/1", "latin-1", "Müller^Jörg"),
        ("8859/5", "iso8859-5", "Дмитрий"),
        ("KS X 1001", "euc_kr", "홍^길동"),
        ("ISO IR87", "iso2022_jp", "山田^太郎"),
        ("GB 18030-2000", "gb18030", "王^小东"),
        ("", "utf-8", "Müller^Jörg"),
        ("", "latin-1", "Müller^Jörg"),
    ],
)
def test_text_is_decoded_as_the_message_says(charset, encoding, name) -> None:
    """MSH-18 names the character set; a sender that names none means UTF-8 or Latin-1."""
    content = adt("A08", pid(name=name), charset=charset).decode().encode(encoding)
    (found,) = read(content)
    assert isinstance(found, PatientFacts)
    assert found.name == name


@pytest.mark.parametrize(
    ("content", "code", "number"),
    [
        (b"", Code.REJECTED, 100),
        (b"PID|1", Code.REJECTED, 100),
        (adt("A01", pid()), Code.REJECTED, 201),
        (adt("A08", pid()).replace(b"ADT^A08", b"ORU^R01"), Code.REJECTED, 201),
        (adt("A08", pid()).replace(b"|P|2.5", b"|T|2.5"), Code.REJECTED, 202),
        (adt("A08", pid()).replace(b"|P|2.5", b"|P|2.1"), Code.REJECTED, 203),
        (adt("A08", pid()).replace(b"|P|2.5", b"|P|9"), Code.REJECTED, 203),
        (adt("A08", pid()).replace(b"MSG-1", b""), Code.ERROR, 101),
        (adt("A08", pid()).replace(b"^~\\&", b"*~\\&"), Code.REJECTED, 201),
        (adt("A08", pid()).replace(b"^~\\&", b"^!\\&"), Code.ERROR, 102),
        (adt("A08"), Code.ERROR, 100),
        (adt("A08", pid("")), Code.ERROR, 101),
        (adt("A08", pid("^^^HOSPITAL")), Code.ERROR, 101),
        (adt("A40", pid()), Code.ERROR, 100),
        (adt("A40", "MRG|1^^^H", pid()), Code.ERROR, 101),
        (adt("A40", pid(), "MRG|"), Code.ERROR, 101),
        (adt("A40", pid("1^^^H~2^^^H"), "MRG|3^^^H"), Code.ERROR, 204),
        (adt("A08", pid(name="ü"), charset="ASCII"), Code.ERROR, 102),
        (adt("A08", pid(), charset="KLINGON"), Code.ERROR, 102),
        (adt("A08", pid("1^^^H~" * 6000)), Code.ERROR, 102),
    ],
)
def test_what_is_not_for_us_or_not_said_plainly_is_refused(content, code, number) -> None:
    """AR where such messages are not for us, AE where this one is at fault; the reason quotes nothing."""
    with pytest.raises(Problem) as caught:
        read(content)
    assert (caught.value.code, caught.value.number) == (code, number)
    assert not any(word in str(caught.value) for word in ("4711", "DOE", "19600102"))


def test_a_long_message_is_read_in_no_time() -> None:
    """Only MSH, PID and MRG are parsed, whatever else a registry attaches."""
    rest = [f"OBX|{number}|ST|a^b^c|x~y~z|1&2&3" for number in range(5000)]
    started = datetime.now(UTC)
    assert len(read(adt("A08", pid(), *rest))) == 1
    assert (datetime.now(UTC) - started).total_seconds() < 5  # hl7apy takes 12 s for the whole


def test_an_answer_turns_sender_and_receiver_round_and_names_the_message() -> None:
    """A positive answer has MSH and MSA."""
    header = read_header(adt("A40", pid()))
    assert acknowledge(header, None, AT, "ANSWER-1") == (
        b"MSH|^~\\&|NODE|RADIOLOGY|ADT|HOSPITAL|20260301120000||ACK^A40^ACK|ANSWER-1|P|2.5\rMSA|AA|MSG-1\r"
    )


def test_a_negative_answer_says_why() -> None:
    """MSA-3 for people, ERR-3 and ERR-4 for machines."""
    header = read_header(adt("A01", pid()))
    answer = acknowledge(header, Problem(Code.REJECTED, 201, "not this event"), AT, "ANSWER-1")
    assert answer.decode().split("\r")[1:] == ["MSA|AR|MSG-1|not this event", "ERR|||201|E||||not this event", ""]

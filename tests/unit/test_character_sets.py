"""Names in every script, read from real files by the real reader: equal after decoding is equal, nothing is refused."""

from __future__ import annotations

import warnings
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest

from dicom_node.receive.reader import Reader
from dicom_node.timeline.identity import compare_patients
from dicom_node.timeline.model import InstanceFacts
from tests.factories.mr import classic_series, write

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from dicom_node.timeline.model import PatientFacts

    Read = Callable[[str | list[str] | None, bytes], PatientFacts]

UTF_8 = "ISO_IR 192"
YAMADA = "Yamada^Tarou=山田^太郎=やまだ^たろう"
HONG = "Hong^Gildong=洪^吉洞=홍^길동"
# The bytes of the examples in PS3.5: H.3.1, H.3.2 (Japanese), I.2 (Korean)
YAMADA_87 = (
    b"Yamada^Tarou=\x1b$B;3ED\x1b(B^\x1b$BB@O:\x1b(B=\x1b$B$d$^$@\x1b(B^\x1b$B$?$m$&\x1b(B",
    ["", "ISO 2022 IR 87"],
)
YAMADA_13_87 = (
    b"\xd4\xcf\xc0\xde^\xc0\xdb\xb3=\x1b$B;3ED\x1b(J^\x1b$BB@O:\x1b(J=\x1b$B$d$^$@\x1b(J^\x1b$B$?$m$&\x1b(J",
    ["ISO 2022 IR 13", "ISO 2022 IR 87"],
)
HONG_149 = (
    b"Hong^Gildong=\x1b$)C\xfb\xf3^\x1b$)C\xd1\xce\xd4\xd7=\x1b$)C\xc8\xab^\x1b$)C\xb1\xe6\xb5\xbf",
    ["", "ISO 2022 IR 149"],
)


@pytest.fixture(scope="module")
def read(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Read]:
    """Return what reads the patient of a file whose name consists of these bytes in this character set."""
    folder = tmp_path_factory.mktemp("names")
    with Reader() as reader:

        def read_name(character_set: str | list[str] | None, name: bytes) -> PatientFacts:
            (ds,) = classic_series(np.zeros((1, 4, 4), dtype=np.uint16), np.eye(4), PatientID="4711")
            if character_set is None:
                ds.pop("SpecificCharacterSet", None)
            else:
                ds.SpecificCharacterSet = character_set
            value = name + b" " * (len(name) % 2)
            with warnings.catch_warnings(action="ignore"):  # of unknown character sets and long names
                ds.PatientName = "X" * len(value)
                (path,) = write([ds], folder)
            content = path.read_bytes()
            assert content.count(b"X" * len(value)) == 1
            path.write_bytes(content.replace(b"X" * len(value), value))
            answer = reader.read(path, "HOSPITAL")
            assert isinstance(answer, InstanceFacts), answer
            return answer.patient

        yield read_name


@pytest.mark.parametrize(
    ("name", "encoded", "character_set"),
    [
        ("Müller^Jörg", "Müller^Jörg".encode("latin-1"), "ISO_IR 100"),
        ("Müller^Jörg", "Müller^Jörg".encode("latin-1"), None),  # what Latin-1 scanners send without saying so
        ("Wałęsa^Lech", "Wałęsa^Lech".encode("iso8859-2"), "ISO_IR 101"),
        ("Дмитрий", "Дмитрий".encode("iso8859-5"), "ISO_IR 144"),
        ("Διονυσιος", "Διονυσιος".encode("iso8859-7"), "ISO_IR 126"),
        ("قباني^لنزار", "قباني^لنزار".encode("iso8859-6"), "ISO_IR 127"),
        ("ﾔﾏﾀﾞ^ﾀﾛｳ", b"\xd4\xcf\xc0\xde^\xc0\xdb\xb3", "ISO_IR 13"),
        (YAMADA, *YAMADA_87),
        ("ﾔﾏﾀﾞ^ﾀﾛｳ" + YAMADA[YAMADA.index("=") :], *YAMADA_13_87),
        (HONG, *HONG_149),
        ("Wang^XiaoDong=王^小东", "Wang^XiaoDong=王^小东".encode("gb18030"), "GB18030"),
    ],
)
def test_one_name_in_two_character_sets_is_one_name(read: Read, name, encoded, character_set) -> None:
    """The scanner's character set and the archive's UTF-8 differ in every byte and in nothing else."""
    scanner, archive = read(character_set, encoded), read(UTF_8, name.encode())
    assert scanner.name == archive.name == name
    assert compare_patients([scanner, archive]).state == "clear"


@pytest.mark.parametrize(
    ("one", "other", "state"),
    [
        ((*YAMADA_87,), (b"Yamada^Tarou", None), "clear"),
        ((*YAMADA_87,), ("=山田^太郎".encode(), UTF_8), "clear"),
        ((*YAMADA_87,), ("Yamada^Tarou=山田^花子".encode(), UTF_8), "ask"),
        ((*YAMADA_87,), (*YAMADA_13_87,), "ask"),  # Latin and katakana in the first group: a person decides
        ((*HONG_149,), (b"Hong^Gildong", "ISO_IR 6"), "clear"),
        ((*HONG_149,), ("Hong^Gilsun=洪^吉洞=홍^길동".encode(), UTF_8), "ask"),
        (("Müller^Jörg".encode("latin-1"), "ISO_IR 100"), (b"Mueller^Joerg", None), "ask"),
        (("Müller^Jörg".encode("latin-1"), "ISO_IR 100"), ("Müller^Jörg".encode(), "ISO_IR 100"), "ask"),
    ],
)
def test_names_of_two_files_are_compared_group_by_group(read: Read, one, other, state) -> None:
    """A spelling that one file lacks conflicts with nothing; a spelling that differs is asked about."""
    both = [read(character_set, name) for name, character_set in (one, other)]
    assert compare_patients(both).state == state
    assert compare_patients([replace(each, birth_date="20100203") for each in both]).state == state


@pytest.mark.parametrize(
    ("name", "character_set"),
    [
        (b"M\xfcller^J\xf6rg", UTF_8),
        (b"\xff\xfe\xfd\x80", UTF_8),
        (b"M\xfcller^J\xf6rg", "ISO_IR 999"),
        (b"M\xfcller^J\xf6rg", ["", "NO SUCH SET"]),
        (b"Yamada^Tarou=\x1b$B;3E", ["", "ISO 2022 IR 87"]),
        (b"Yamada^Tarou=\x1b$)Q\xfb\xf3", ["", "ISO 2022 IR 87"]),
        (b"=" * 20, None),
        (b"A" * 2000, None),
        (b"DOE^JANE\x00\x00", None),
    ],
)
def test_a_name_that_cannot_be_decoded_stops_no_file(read: Read, name, character_set) -> None:
    """The file is read; its name is what could be made of it, and compares as such."""
    found = read(character_set, name)
    assert found.patient_id == "4711"
    assert compare_patients([found, found]).state == "clear"


def test_an_undecodable_name_is_asked_about(read: Read) -> None:
    """It is not taken for the name it may have been."""
    broken, good = read(UTF_8, b"M\xfcller^J\xf6rg"), read(UTF_8, "Müller^Jörg".encode())
    assert compare_patients([broken, good]).state == "ask"


@pytest.mark.parametrize("padding", [" {}", "{} ", "  {}  ", "{}\0"])
def test_padded_ids_are_one_patient(tmp_path: Path, padding) -> None:
    """Only spaces at the ends (and the null some senders pad with) mean nothing."""
    (ds,) = classic_series(np.zeros((1, 4, 4), dtype=np.uint16), np.eye(4), PatientID=padding.format("47 011a"))
    (path,) = write([ds], tmp_path)
    with Reader() as reader:
        answer = reader.read(path, "HOSPITAL")
    assert isinstance(answer, InstanceFacts)
    assert answer.patient.key == ("HOSPITAL", "47 011a")

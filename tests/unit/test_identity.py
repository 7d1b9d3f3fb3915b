"""Two humans never mix."""

from __future__ import annotations

import unicodedata
from dataclasses import replace

import pytest

from dicom_node.timeline.identity import compare_patients, is_safe_in_query, name_groups, same_patient
from tests.factories.facts import PATIENT


@pytest.mark.parametrize(
    ("changes", "state", "fields"),
    [
        ({}, "clear", ()),
        ({"birth_date": "20100204"}, "conflict", ("PatientBirthDate",)),
        ({"sex": "M"}, "conflict", ("PatientSex",)),
        ({"sex": "M", "birth_date": "19500101"}, "conflict", ("PatientBirthDate", "PatientSex")),
        ({"birth_date": "", "sex": ""}, "clear", ()),
        ({"name": ""}, "clear", ()),
        ({"name": "SENTINEL^PATIENT^^^"}, "clear", ()),
        ({"name": "Sentinel^Patient"}, "ask", ("PatientName",)),
        ({"name": "SENTINEL^OTHER"}, "ask", ("PatientName",)),
        ({"name": "OTHER^X", "sex": "M"}, "conflict", ("PatientSex", "PatientName")),
    ],
)
def test_demographics_are_compared_by_field(changes, state, fields) -> None:
    """Birth date and sex hold, a name asks, empty conflicts with nothing; values are never told."""
    found = compare_patients([PATIENT, replace(PATIENT, **changes)])
    assert (found.state, found.fields) == (state, fields)
    assert compare_patients([replace(PATIENT, **changes), PATIENT]) == found


def test_an_accepted_spelling_is_clear() -> None:
    """`patient accept` settles the spellings it was asked about, and no others."""
    other = replace(PATIENT, name="SENTINEL-MARRIED^PATIENT")
    both = {"PatientName": {PATIENT.name, other.name + "^^"}}
    assert compare_patients([PATIENT, other], accepted=both).state == "clear"
    third = replace(PATIENT, name="THIRD^PATIENT")
    assert compare_patients([PATIENT, other, third], accepted=both).state == "ask"


@pytest.mark.parametrize(("field", "change"), [("PatientBirthDate", "birth_date"), ("PatientSex", "sex")])
def test_a_birth_date_or_sex_is_accepted_by_its_own_name_only(field, change) -> None:
    """Accepted names settle no birth date, and an accepted birth date settles no third one."""
    other = replace(PATIENT, **{change: "O"})
    values = {getattr(PATIENT, change), "O"}
    assert compare_patients([PATIENT, other], accepted={"PatientName": values}).fields == (field,)
    assert compare_patients([PATIENT, other], accepted={field: values}).state == "clear"
    third = replace(PATIENT, **{change: "M"})
    assert compare_patients([PATIENT, other, third], accepted={field: values}).state == "conflict"


def test_a_third_record_can_conflict_where_neighbours_do_not() -> None:
    """All records are compared, an empty one does not hide a conflict."""
    empty, other = replace(PATIENT, sex=""), replace(PATIENT, sex="M")
    assert compare_patients([PATIENT, empty, other]).state == "conflict"


def test_two_ids_of_one_human_are_compared_by_what_they_say() -> None:
    """After a merge the records of both IDs describe one human, or they do not."""
    retired = replace(PATIENT, issuer="ELSEWHERE", patient_id="0815")
    assert compare_patients([PATIENT, retired]).state == "clear"
    assert compare_patients([PATIENT, replace(retired, birth_date="19990101")]).fields == ("PatientBirthDate",)


@pytest.mark.parametrize("name", ["山田^太郎", "Yamada^Tarou=山田^太郎=やまだ^たろう", "قباني^لنزار", "Müller^Jörg"])
def test_names_of_any_script_equal_themselves(name) -> None:
    """Padding of components and groups means nothing, nor how an accent is composed."""
    assert name_groups(name + "^^=") == name_groups(name) == name_groups(unicodedata.normalize("NFD", name))


@pytest.mark.parametrize(
    ("one", "other", "state"),
    [
        ("Yamada^Tarou", "Yamada^Tarou=山田^太郎=やまだ^たろう", "clear"),
        ("Yamada^Tarou=山田^太郎", "Yamada^Tarou==やまだ^たろう", "clear"),
        ("=山田^太郎", "Yamada^Tarou=山田^太郎", "clear"),
        ("Yamada^Tarou=山田^太郎", "Yamada^Tarou=山田^花子", "ask"),
        ("Yamada^Tarou=山田^太郎", "Yamada^Hanako=山田^太郎", "ask"),
        ("Hong^Gildong=洪^吉洞=홍^길동", "Hong^Gildong=洪^吉洞=홍^길순", "ask"),
        ("Müller^Jörg", "Muller^Jorg", "ask"),
        ("Müller^Jörg", "MÜLLER^JÖRG", "ask"),
    ],
)
def test_names_are_compared_group_by_group(one, other, state) -> None:
    """Alphabetic with alphabetic, ideographic with ideographic, phonetic with phonetic; a missing one says nothing."""
    assert compare_patients([replace(PATIENT, name=one), replace(PATIENT, name=other)]).state == state


def test_a_name_with_one_group_does_not_hide_that_two_others_differ() -> None:
    """Records are compared all with all."""
    names = ("Yamada^Tarou", "=山田^太郎", "Satou^Tarou=山田^太郎")
    assert compare_patients(replace(PATIENT, name=name) for name in names).state == "ask"


@pytest.mark.parametrize(
    ("patient_id", "safe"), [("4711", True), ("47*", False), ("47?1", False), ("47\\11", False), ("", False)]
)
def test_wild_cards_are_never_queried(patient_id, safe) -> None:
    """An ID with a wild card would match other patients."""
    assert is_safe_in_query(patient_id) is safe


@pytest.mark.parametrize(
    ("found", "same"), [("4711", True), (" 4711 ", True), ("04711", False), ("4711a", False), ("4711A", False)]
)
def test_ids_are_compared_exactly_but_for_spaces(found, same) -> None:
    """Never case, never zeros."""
    assert same_patient("4711", found) is same
    assert not same_patient("4711a", "4711A")

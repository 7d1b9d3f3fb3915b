"""Two humans never mix."""

from __future__ import annotations

from dataclasses import replace

import pytest

from dicom_node.timeline.identity import compare_patients, is_safe_in_query, name_key, same_patient
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
    both = (PATIENT.name, other.name)
    assert compare_patients([PATIENT, other], accepted_names=both).state == "clear"
    third = replace(PATIENT, name="THIRD^PATIENT")
    assert compare_patients([PATIENT, other, third], accepted_names=both).state == "ask"


def test_a_third_record_can_conflict_where_neighbours_do_not() -> None:
    """All records are compared, an empty one does not hide a conflict."""
    empty, other = replace(PATIENT, sex=""), replace(PATIENT, sex="M")
    assert compare_patients([PATIENT, empty, other]).state == "conflict"


def test_two_issuers_never_meet() -> None:
    """The same PatientID of two issuers is two patients: comparing them is a mistake of the caller."""
    with pytest.raises(ValueError, match="one \\(issuer, PatientID\\)"):
        compare_patients([PATIENT, replace(PATIENT, issuer="ELSEWHERE")])


@pytest.mark.parametrize("name", ["山田^太郎", "Yamada^Tarou=山田^太郎=やまだ^たろう", "قباني^لنزار", "Müller^Jörg"])
def test_names_of_any_script_equal_themselves(name) -> None:
    """Padding of components and groups means nothing."""
    assert name_key(name + "^^=") == name_key(name)


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

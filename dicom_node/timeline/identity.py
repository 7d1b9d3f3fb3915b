"""Two humans never mix: does what several instances say about one (issuer, PatientID) describe one human?"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from dicom_node.timeline.model import PatientFacts

UNSAFE_IN_QUERY = frozenset("*?\\")  # wild cards and the value separator, PS3.4 C.2.2.2 and PS3.5 6.2


class IdentityState(StrEnum):
    """What follows from comparing demographics."""

    CLEAR = "clear"
    ASK = "ask"  # only names differ: a person must accept
    CONFLICT = "conflict"  # birth date or sex differ: the case is held


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """The outcome, with the names of the fields that differ (never their values)."""

    state: IdentityState = IdentityState.CLEAR
    fields: tuple[str, ...] = ()


CLEAR = Identity()


def compare_patients(records: Iterable[PatientFacts], *, accepted_names: Iterable[str] = ()) -> Identity:
    """Compare all that was said about one patient; an empty value conflicts with nothing.

    Args:
        records: what the instances say, all of one (issuer, PatientID).
        accepted_names: spellings that a person has accepted as the same human's.

    Raises:
        ValueError: if the records are of more than one (issuer, PatientID).
    """
    records = tuple(records)
    if len({record.key for record in records}) > 1:
        msg = "compare_patients: expected records of one (issuer, PatientID), found several"
        raise ValueError(msg)
    hard = [
        field
        for field, values in (
            ("PatientBirthDate", {record.birth_date for record in records}),
            ("PatientSex", {record.sex for record in records}),
        )
        if len(values - {""}) > 1
    ]
    accepted = {name_key(name) for name in accepted_names}
    names = {name_key(record.name) for record in records} - {""}
    soft = ["PatientName"] if len(names) > 1 and not names <= accepted else []
    if hard:
        return Identity(state=IdentityState.CONFLICT, fields=tuple(hard + soft))
    if soft:
        return Identity(state=IdentityState.ASK, fields=tuple(soft))
    return CLEAR


def name_key(name: str) -> str:
    """Reduce a person name to what spelling cannot change: empty trailing components and groups mean nothing.

    Case, accents and order of components do count: a person decides on those.

    Source: PS3.5 6.2.1 (PN).
    """
    groups = ["^".join(part.strip() for part in group.split("^")).rstrip("^") for group in name.split("=")]
    return "=".join(groups).rstrip("=")


def is_safe_in_query(patient_id: str) -> bool:
    """Tell whether an ID may stand in a C-FIND or QIDO query without matching other patients."""
    return bool(patient_id) and not UNSAFE_IN_QUERY & set(patient_id)


def same_patient(asked_id: str, found_id: str) -> bool:
    """Compare the PatientID of a response with the one asked for: exactly, but for spaces at both ends.

    Source: PS3.4 C.2.2.2.1 (single value matching).
    """
    return asked_id.strip(" ") == found_id.strip(" ")

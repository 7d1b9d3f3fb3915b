"""Two humans never mix: does what several instances say about one patient describe one human?"""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

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


def compare_patients(
    records: Iterable[PatientFacts], *, accepted: Mapping[str, Collection[str]] = MappingProxyType({})
) -> Identity:
    """Compare all that was said about one patient; an empty value conflicts with nothing.

    The records may carry several PatientIDs, where somebody said that they are one human's.

    Args:
        records: what the instances say, and what a registry says.
        accepted: DICOM keyword -> values that a person has accepted as one human's. A field is settled only if every
            value of it was accepted: a further one is asked about again.
    """
    records = tuple(records)
    hard = tuple(
        field
        for field, values in (
            ("PatientBirthDate", {record.birth_date for record in records}),
            ("PatientSex", {record.sex for record in records}),
        )
        if _differ(values, accepted.get(field, ()))
    )
    groups = zip(*(name_groups(record.name) for record in records), strict=True)
    known = tuple(zip(*(name_groups(name) for name in accepted.get("PatientName", ())), strict=True))
    names_differ = any(_differ(set(group), known[number] if known else ()) for number, group in enumerate(groups))
    soft = ("PatientName",) if names_differ else ()
    if hard:
        return Identity(state=IdentityState.CONFLICT, fields=hard + soft)
    return Identity(state=IdentityState.ASK, fields=soft) if soft else CLEAR


def _differ(values: Collection[str], accepted: Collection[str]) -> bool:
    said = set(values) - {""}
    return len(said) > 1 and not said <= set(accepted)


def name_groups(name: str) -> tuple[str, str, str]:
    """Reduce a person name to its alphabetic, ideographic and phonetic spelling, each comparable as a text.

    What cannot be told apart on paper is dropped: empty components at the end, spaces around a component, and whether
    an accented letter is one code point or two. Case, accents and order of components do count: a person decides
    on those. A group that is missing is empty, and so conflicts with nothing.

    Source: PS3.5 6.2.1 (PN); Unicode Standard Annex 15 (NFC).
    """
    groups = [
        "^".join(part.strip() for part in group.split("^")).rstrip("^")
        for group in unicodedata.normalize("NFC", name).split("=")
    ]
    alphabetic, ideographic, phonetic = [*groups, "", "", ""][:3]
    return alphabetic, ideographic, phonetic


def name_key(name: str) -> str:
    """Return a whole person name as `name_groups` compares it."""
    return "=".join(name_groups(name)).rstrip("=")


def is_safe_in_query(patient_id: str) -> bool:
    """Tell whether an ID may stand in a C-FIND or QIDO query without matching other patients."""
    return bool(patient_id) and not UNSAFE_IN_QUERY & set(patient_id)


def same_patient(asked_id: str, found_id: str) -> bool:
    """Compare the PatientID of a response with the one asked for: exactly, but for spaces at both ends.

    Source: PS3.4 C.2.2.2.1 (single value matching).
    """
    return asked_id.strip(" ") == found_id.strip(" ")

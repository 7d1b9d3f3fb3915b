"""What people and registries say of identities: merge, split, give a study to another, accept, state.

Each enters what was said, derives the owners anew and writes the audit, in the caller's transaction: whole or not at
all. A message of an error holds no identity, so that it may be logged and answered to a peer; the caller names whom
it was about.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Final, TypeAlias

from sqlalchemy import delete, insert, select

from dicom_node.errors import PeerError
from dicom_node.ledger import cohort, identity
from dicom_node.ledger.ownership import Derived, derive_owners
from dicom_node.ledger.patients import facts_of, patient_row, survivor, touch
from dicom_node.ledger.tables import (
    accepted_value,
    case_order,
    patient,
    patient_alias,
    patient_statement,
    study,
    study_owner,
)
from dicom_node.timeline.identity import compare_patients
from dicom_node.timeline.model import CohortFacts, PatientFacts

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from datetime import datetime

    from sqlalchemy import Connection

Key: TypeAlias = tuple[str, str]  # (issuer, PatientID)
FIELDS: Final = {"PatientName": "name", "PatientBirthDate": "birth_date", "PatientSex": "sex"}
LONGEST_ID: Final = 64  # VR LO, PS3.5 6.2
LONGEST_VALUE: Final = 512
LONGEST_SOURCE: Final = 64
NOTHING: Final = Derived()


class Refused(PeerError):  # noqa: N818 - the name says what it is
    """What was said of identities cannot be: it contradicts itself, or what was said before."""


@dataclass(frozen=True, slots=True, kw_only=True)
class By:
    """Who says something of an identity, and when."""

    actor: str
    at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """What a change came to. `new` is False where it was known already; `remarks` are for the person who asked."""

    new: bool
    derived: Derived = NOTHING
    remarks: tuple[str, ...] = ()


def merge(connection: Connection, retired: Key, surviving: Key, by: By) -> Change:
    """Say that two IDs are one patient, known from now on by the surviving one, or by what that was merged into.

    Raises:
        Refused: if both are the same ID, the retired one is another's already, or they would make a ring.
    """
    retired, surviving = _legal(retired), _legal(surviving)
    if retired == surviving:
        msg = "merge: expected two IDs, found the same one twice"
        raise Refused(msg)
    rows = (patient_row(connection, *retired), patient_row(connection, *surviving))
    before = tuple(survivor(connection, each) for each in rows)
    if before[0] == rows[0] == before[1]:
        msg = "merge: the surviving ID was merged into the retired one before; split it first"
        raise Refused(msg)
    if before[0] == before[1]:
        return Change(new=False, remarks=("they are one patient already",))
    if before[0] != rows[0]:
        msg = "merge: the retired ID was merged into a third one before; split it first"
        raise Refused(msg)
    connection.execute(
        insert(patient_alias).values(
            issuer=retired[0], patient_id=retired[1], patient=rows[1], since=by.at, source=by.actor[:LONGEST_SOURCE]
        )
    )
    _copy_holds(connection, before[0], before[1])
    derived = derive_owners(connection, before, by.at)
    remarks = _cohort_remarks(connection, retired, surviving)
    _audit(connection, by, "patient merge", retired, {"into": list(surviving), **asdict(derived)})
    return Change(new=True, derived=derived, remarks=remarks)


def split(connection: Connection, retired: Key, by: By) -> Change:
    """Take a merge back: the ID stands for itself again, with whatever was merged into it.

    Raises:
        Refused: if the ID was not merged into another.
    """
    retired = _legal(retired)
    row = patient_row(connection, *retired)
    before = survivor(connection, row)
    if before == row:
        msg = "split: expected an ID that was merged into another, found one that stands for itself"
        raise Refused(msg)
    connection.execute(
        delete(patient_alias).where(patient_alias.c.issuer == retired[0], patient_alias.c.patient_id == retired[1])
    )
    derived = derive_owners(connection, (before, row), by.at)
    _audit(connection, by, "patient split", retired, asdict(derived))
    return Change(new=True, derived=derived)


def give_study(connection: Connection, study_instance_uid: str, to: Key | None, by: By) -> Change:
    """Give one study to a patient whatever ID it carries, as where two humans had one; None: back to what it carries.

    Raises:
        Refused: if there is no such study here, or nothing was to be taken back.
    """
    chosen = study_owner.c.study_instance_uid == study_instance_uid
    before = connection.scalar(select(study.c.patient).where(study.c.study_instance_uid == study_instance_uid))
    if before is None:
        msg = "split: there is no such study here"
        raise Refused(msg)
    taken = connection.execute(delete(study_owner).where(chosen)).rowcount
    concerned = [before]
    if to is not None:
        row = patient_row(connection, *_legal(to))
        concerned.append(survivor(connection, row))
        values = {"patient": row, "since": by.at, "source": by.actor[:LONGEST_SOURCE]}
        connection.execute(insert(study_owner).values(study_instance_uid=study_instance_uid, **values))
    elif not taken:
        msg = "split: expected a study that was given to somebody by hand, found one under the ID it carries"
        raise Refused(msg)
    derived = derive_owners(connection, dict.fromkeys(concerned).keys(), by.at)
    details = {"study_instance_uid": study_instance_uid, "to": list(to) if to else None, **asdict(derived)}
    _audit(connection, by, "patient split", _key(connection, before), details)
    return Change(new=derived.instances > 0, derived=derived)


def accept(connection: Connection, row_id: int, fields: Iterable[str], by: By) -> dict[str, tuple[str, ...]]:
    """Accept the values seen now of the fields that differ as one human's; a value seen later is asked about again.

    Args:
        connection: a write transaction.
        row_id: the patient.
        fields: DICOM keywords, of `FIELDS`.
        by: who accepts.

    Returns:
        DICOM keyword -> accepted values, for the fields that did differ.
    """
    records = _records(connection, row_id)
    known = identity.accepted(connection, row_id)
    differing = compare_patients(records, accepted=known).fields
    found = {
        keyword: tuple(sorted({getattr(each, FIELDS[keyword]) for each in records} - {""}))
        for keyword in fields
        if keyword in differing
    }
    for keyword, values in found.items():
        _accept(connection, row_id, keyword, values, by)
    if found:
        _audit(connection, by, "patient accept", _key(connection, row_id), found)
        touch(connection, row_id)
    return found


def state(connection: Connection, said: PatientFacts, by: By) -> Change:
    """Keep what a registry says of an ID today; a value it leaves empty stays as it was said before.

    A new name that comes with the birth date that the instances tell is a correction, and the old and the new spelling
    are accepted as one human's; without it a person decides. A birth date or sex that differs from what the instances
    say holds the case.
    An ID we know nothing of is not kept.

    Raises:
        Refused: if the name is longer than any name.
    """
    known = select(patient.c.id).where(patient.c.issuer == said.issuer, patient.c.patient_id == said.patient_id)
    row: int | None = connection.scalar(known)
    if row is None:
        return Change(new=False, remarks=("nothing is known of this ID here",))
    before = identity.statement(connection, *said.key)
    values = {name: getattr(said, name) or (getattr(before, name) if before else "") for name in FIELDS.values()}
    if len(values["name"]) > LONGEST_VALUE:
        msg = f"update: PatientName: expected at most {LONGEST_VALUE} characters, found {len(values['name'])}"
        raise Refused(msg)
    if not any(values.values()) or (before and all(getattr(before, name) == value for name, value in values.items())):
        return Change(new=False)
    standing = survivor(connection, row)
    seen = [each.patient for each in facts_of(connection, standing)]
    connection.execute(
        delete(patient_statement).where(
            patient_statement.c.issuer == said.issuer, patient_statement.c.patient_id == said.patient_id
        )
    )
    connection.execute(
        insert(patient_statement).values(
            issuer=said.issuer, patient_id=said.patient_id, since=by.at, source=by.actor[:LONGEST_SOURCE], **values
        )
    )
    if said.birth_date and said.birth_date in {each.birth_date for each in seen}:
        _accept_correction(connection, standing, seen, by)
    _audit(connection, by, "patient update", said.key, values)
    touch(connection, standing)
    return Change(new=True)


def _accept_correction(connection: Connection, row_id: int, seen: list[PatientFacts], by: By) -> None:
    """Accept a registry's new spelling beside the old one, where nothing else is in doubt."""
    known = identity.accepted(connection, row_id)
    said = identity.stated(connection, row_id)
    in_doubt = compare_patients(seen, accepted=known).fields
    if in_doubt or compare_patients([*seen, *said], accepted=known).fields != ("PatientName",):
        return
    names = {each.name for each in (*seen, *said) if each.name}
    _accept(connection, row_id, "PatientName", sorted(names), by)


def _accept(connection: Connection, row_id: int, keyword: str, values: Iterable[str], by: By) -> None:
    known = identity.accepted(connection, row_id).get(keyword, frozenset())
    for value in values:
        if len(value) > LONGEST_VALUE:
            msg = f"accept: {keyword}: expected at most {LONGEST_VALUE} characters, found {len(value)}"
            raise Refused(msg)
        if value not in known:
            source = by.actor[:LONGEST_SOURCE]
            row = {"patient": row_id, "field": keyword, "value": value, "since": by.at, "source": source}
            connection.execute(insert(accepted_value).values(**row))


def _records(connection: Connection, row_id: int) -> list[PatientFacts]:
    return [each.patient for each in facts_of(connection, row_id)] + identity.stated(connection, row_id)


def _copy_holds(connection: Connection, retired: int, surviving: int) -> None:
    """Keep a case on hold that a person has held under the ID that is retired."""
    held = select(case_order.c.task).where(case_order.c.patient == surviving, case_order.c.kind == "hold")
    already = set(connection.scalars(held))
    query = select(case_order).where(case_order.c.patient == retired, case_order.c.kind == "hold")
    for row in connection.execute(query).all():
        if row.task not in already:
            connection.execute(insert(case_order).values(**{**row._mapping, "patient": surviving}))  # noqa: SLF001 - SQLAlchemy's public name


def _cohort_remarks(connection: Connection, retired: Key, surviving: Key) -> tuple[str, ...]:
    one, other = cohort.read(connection, *retired), cohort.read(connection, *surviving)
    nothing = CohortFacts()
    if nothing in (one, other) or one == other:
        return ()
    return ("the cohort says different things of the two IDs; see `cohort list` for what counts",)


def _legal(key: Key) -> Key:
    issuer, patient_id = (part.strip(" ") for part in key)
    for name, text in (("PatientID", patient_id), ("issuer", issuer)):
        if not 0 < len(text) <= LONGEST_ID or not text.isprintable():
            msg = f"{name}: expected 1 to {LONGEST_ID} printable characters, found {len(text)}"
            raise Refused(msg)
    return issuer, patient_id


def _key(connection: Connection, row_id: int) -> Key:
    return identity.ids_of(connection, row_id)[0]


def _audit(connection: Connection, by: By, action: str, subject: Key, details: Mapping[str, object]) -> None:
    issuer, patient_id = subject
    cohort.write_audit(
        connection, at=by.at, actor=by.actor[:LONGEST_SOURCE], action=action, subject=f"{patient_id}^^^{issuer}",
        details=details,
    )  # fmt: skip

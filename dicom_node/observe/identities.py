"""What is said of a patient's identity, by whom, and where it differs: for an admin's eyes, never for a log."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy import select

from dicom_node.ledger import arrivals, identity, patients
from dicom_node.ledger.identity_changes import FIELDS
from dicom_node.ledger.tables import study_owner
from dicom_node.timeline.identity import IdentityState, compare_patients

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy import Connection

    from dicom_node.ledger.patients import Patient


def identities(connection: Connection, *, only_conflicts: bool = False) -> Iterator[dict[str, Any]]:
    """Describe every patient who stands for himself, or only those about whom a person has to decide."""
    for each in patients.all_patients(connection):
        if patients.survivor(connection, each.row_id) != each.row_id:
            continue
        found = describe_identity(connection, each)
        if not only_conflicts or found["state"] != IdentityState.CLEAR or found["conflicting_files"]:
            yield found


def describe_identity(connection: Connection, patient: Patient) -> dict[str, Any]:
    """Describe one patient: the IDs, what each field is said to be by which studies, and what was said by hand.

    A file conflicts that contradicts an instance of the same SOP Instance UID. `registry` are the IDs for which a
    registry says a value.
    """
    facts = patients.facts_of(connection, patient.row_id)
    said = identity.stated(connection, patient.row_id)
    accepted = identity.accepted(connection, patient.row_id)
    found = compare_patients([*(each.patient for each in facts), *said], accepted=accepted)
    values: dict[str, dict[str, dict[str, Any]]] = {keyword: {} for keyword in FIELDS}
    for keyword, name in FIELDS.items():
        for each in facts:
            entry = values[keyword].setdefault(getattr(each.patient, name), {"studies": {}, "registry": []})
            entry["studies"][each.study_instance_uid] = each.acquired_on
        for stated in said:
            entry = values[keyword].setdefault(getattr(stated, name), {"studies": {}, "registry": []})
            entry["registry"].append(_id(*stated.key))
    given = select(study_owner.c.study_instance_uid).where(
        study_owner.c.patient.in_(identity.rows_of(connection, patient.row_id))
    )
    return {
        **_id(patient.issuer, patient.patient_id),
        "also": [_id(*key) for key in identity.ids_of(connection, patient.row_id)[1:]],
        "state": found.state.value,
        "differs_in": list(found.fields),
        "conflicting_files": arrivals.conflicts(connection, patient.row_id),
        "studies_given_by_hand": sorted(connection.scalars(given)),
        "fields": {
            keyword: [
                {
                    "value": value,
                    "accepted": value in accepted.get(keyword, ()),
                    "registry": entry["registry"],
                    "studies": [
                        {"study_instance_uid": uid, "acquired_on": day}
                        for uid, day in sorted(entry["studies"].items(), key=lambda item: (str(item[1]), item[0]))
                    ],
                }
                for value, entry in sorted(spoken.items())
                if value
            ]
            for keyword, spoken in values.items()
        },
    }


def _id(issuer: str, patient_id: str) -> dict[str, str]:
    return {"issuer": issuer, "patient_id": patient_id}

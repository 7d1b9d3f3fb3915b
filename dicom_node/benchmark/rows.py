"""A ledger as after years of reception: rows of read instances, each with its file, of patients who were decided on.

The rows go in by the thousand through the tables, with their indexes; the files are links to one image, so that the
scan at the start of a node finds each of them, in its full size.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import insert

from dicom_node.benchmark.images import ISSUER
from dicom_node.benchmark.servers import SENDER_AE
from dicom_node.ledger.tables import ArrivalState, CaseState, arrival, case, instance, patient, study
from dicom_node.receive.facts import read_facts
from sr_templates.uids import derive_uid

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from sqlalchemy import Connection

    from dicom_node.ledger.database import Database
    from dicom_node.receive.files import InstanceFiles
    from dicom_node.timeline.model import InstanceFacts

SLICES: Final = 176
SERIES: Final = 4  # of a study
STUDIES: Final = 4  # of a patient
PER_PATIENT: Final = SLICES * SERIES * STUDIES
CHUNK: Final = 10_000
LINKS: Final = 50_000  # of one file: ext4 allows 65,000
LONG_AGO: Final = datetime(2025, 1, 6, 12, tzinfo=UTC)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Place:
    """Where a row stands: whose it is, and in which study and series."""

    number: int

    @property
    def patient(self) -> int:
        """The row of the patient, from 1."""
        return 1 + self.number // PER_PATIENT

    @property
    def study(self) -> str:
        """A UID."""
        return derive_uid("row study", self.number // (SLICES * SERIES))

    @property
    def series(self) -> str:
        """A UID."""
        return derive_uid("row series", self.number // SLICES)

    @property
    def uid(self) -> str:
        """Of the instance."""
        return derive_uid("row", self.number)

    @property
    def path(self) -> str:
        """Of its file, as random as the names that the node gives."""
        name = hashlib.sha256(self.uid.encode()).hexdigest()[:32]
        return f"{name[:2]}/{name}.dcm"


def fill(database: Database, files: InstanceFiles, image: Path, rows: int) -> None:
    """Enter so many instances into an empty ledger, and link a file for each.

    Args:
        database: migrated, and empty.
        files: prepared.
        image: a Part 10 file; the instances say what it says, but for identity and UIDs.
        rows: how many.

    Raises:
        OSError: if the disk says no.
    """
    facts = read_facts(image, default_issuer=ISSUER)
    size_bytes = image.stat().st_size
    with database.write() as ledger:
        _enter_patients(ledger, rows)
    for start in range(0, rows, CHUNK):
        places = [_Place(number=number) for number in range(start, min(start + CHUNK, rows))]
        with database.write() as ledger:
            ledger.execute(insert(arrival), [_arrival(each, facts, size_bytes) for each in places])
            ledger.execute(insert(instance), list(_instances(places, facts)))
    _link(files, image, rows)


def _enter_patients(ledger: Connection, rows: int) -> None:
    patients = range(1, 2 + (rows - 1) // PER_PATIENT)
    ledger.execute(
        insert(patient),
        [
            {"id": each, "issuer": ISSUER, "patient_id": _patient_id(each), "revision": 1, "decided_revision": 1}
            for each in patients
        ],
    )
    decided = {"task": "glioma-recurrence", "state": CaseState.INELIGIBLE, "reasons": "[]", "decided_at": LONG_AGO}
    ledger.execute(insert(case), [{"patient": each, **decided} for each in patients])
    firsts = [_Place(number=number) for number in range(0, rows, SLICES * SERIES)]
    times = {"burst_started_at": LONG_AGO, "last_received_at": LONG_AGO, "stat": False}
    ledger.execute(
        insert(study), [{"study_instance_uid": each.study, "patient": each.patient, **times} for each in firsts]
    )


def _patient_id(row: int) -> str:
    return f"ROW-{row}"


def _arrival(place: _Place, facts: InstanceFacts, size_bytes: int) -> dict[str, Any]:
    return {
        "id": place.number + 1,
        "sop_instance_uid": place.uid,
        "sop_class_uid": facts.sop_class_uid,
        "transfer_syntax_uid": "1.2.840.10008.1.2.1",
        "path": place.path,
        "size_bytes": size_bytes,
        "calling_ae_title": SENDER_AE,
        "default_issuer": ISSUER,
        "stat": False,
        "received_at": LONG_AGO,
        "state": ArrivalState.INDEXED,
        "tries": 0,
        "patient": place.patient,
        "study_instance_uid": place.study,
    }


def _instances(places: list[_Place], facts: InstanceFacts) -> Iterator[dict[str, Any]]:
    said = facts.to_json()
    for each in places:
        digest = f"sha256:{hashlib.sha256(each.uid.encode()).hexdigest()}"
        changes = {
            facts.sop_instance_uid: each.uid,
            facts.series_instance_uid: each.series,
            facts.study_instance_uid: each.study,
            facts.content_digest: digest,
            f'"{facts.patient.patient_id}"': f'"{_patient_id(each.patient)}"',
        }
        text = said
        for old, new in changes.items():
            text = text.replace(old, new)
        yield {
            "sop_instance_uid": each.uid,
            "arrival": each.number + 1,
            "patient": each.patient,
            "study_instance_uid": each.study,
            "series_instance_uid": each.series,
            "content_digest": digest,
            "phantom": True,
            "facts": text,
        }


def _link(files: InstanceFiles, image: Path, rows: int) -> None:
    source = image
    for number in range(rows):
        path = files.path(_Place(number=number).path)
        if number % LINKS == 0:
            shutil.copyfile(image, path)
            source = path
        else:
            os.link(source, path)

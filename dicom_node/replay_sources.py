"""Where a history to replay comes from: the ledger, as things happened, or a folder, as things were acquired."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Final

from dicom_node.app import now
from dicom_node.cli_options import find_patient, open_ledger
from dicom_node.cohort_file import read_cohort
from dicom_node.cohort_values import read_facts
from dicom_node.errors import NodeError
from dicom_node.ledger import cohort as ledger_cohort
from dicom_node.ledger import history as ledger_history
from dicom_node.ledger import identity
from dicom_node.priors.own_reports import STRUCTURED_REPORT, OwnReport
from dicom_node.receive.reader import Reader, Unread
from dicom_node.timeline.arrival_order import as_acquired
from dicom_node.timeline.history import CohortChanged, History, Rejected
from dicom_node.timeline.model import CohortFacts
from dicom_node.timeline.rejection import WRONG, RejectionNote
from dicom_node.work.known import read_known

if TYPE_CHECKING:
    from pathlib import Path

    from sqlalchemy import Connection

    from dicom_node.ledger.patients import Patient
    from dicom_node.settings import Receive, Settings
    from dicom_node.timeline.model import InstanceFacts

AFTERWARDS: Final = timedelta(days=1)  # a rejection note in a folder does not say when it came: after everything


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """The histories to replay, until when (None: until all is over), and why files gave no facts, with their number."""

    histories: tuple[History, ...]
    until: datetime | None = None
    unread: tuple[tuple[str, int], ...] = ()


def from_ledger(settings: Settings, name: str) -> Found:
    """Return a patient's history as the ledger remembers it; aliases and counts as they stand now."""
    with open_ledger(settings).read() as ledger:
        patient = find_patient(ledger, name)
        known = read_known(ledger, patient)
        cohort, changes = _cohort_in_time(ledger, patient, known.cohort)
        history = History(
            patient=(patient.issuer, patient.patient_id),
            events=(*ledger_history.events_of(ledger, patient.row_id), *changes),
            cohort=cohort,
            stated=tuple(identity.stated(ledger, patient.row_id)),
            accepted=identity.accepted(ledger, patient.row_id),
            expected=known.expected,
        )
    return Found(histories=(history,), until=now())


def _cohort_in_time(
    ledger: Connection, patient: Patient, present: CohortFacts
) -> tuple[CohortFacts, list[CohortChanged]]:
    """Return what the cohort said at first, and every change by hand.

    Where the audit does not lead to what it says at present, as after a merge, the present counts from the beginning.
    """
    told = ledger_cohort.changes(ledger, [ledger_cohort.subject(patient.issuer, patient.patient_id)])
    if not told or not all({"before", "after"} <= set(each.details) for each in told):
        return present, []
    changes = [CohortChanged(at=each.at, cohort=read_facts(each.details["after"])) for each in told]
    if changes[-1].cohort != present:
        return present, []
    return read_facts(told[0].details["before"]), changes


def from_folder(settings: Settings, folder: Path, cohort_file: Path | None) -> Found:
    """Read a folder, file by file in the sacrificial child, into one history per (issuer, PatientID).

    Raises:
        ConfigError: if the cohort file is wrong.
        NodeError: if no file is an MR image.
    """
    issuer, aliases = settings.receive.default_issuer, settings.receive.issuer_aliases
    # no day is in the future for a replay, whose clock is its own
    rows = read_cohort(cohort_file, default_issuer=issuer, issuer_aliases=aliases) if cohort_file else []
    cohort = {(row.issuer, row.patient_id): row.facts for row in rows}
    facts, notes, unread = _read(folder, settings.receive)
    if not facts:
        why = ", ".join(f"{count} files: {reason}" for reason, count in unread)
        msg = f"{folder}: no MR images; {why or 'it is empty'}"
        raise NodeError(msg)
    histories = []
    for key, images in sorted(facts.items()):
        arrived = as_acquired(images)
        rejected = [
            Rejected(at=arrived[-1].at + AFTERWARDS, sop_instance_uids=frozenset(note.sop_instance_uids))
            for note in notes
            if note.patient.key == key and note.title in WRONG
        ]
        history = History(patient=key, events=(*arrived, *rejected), cohort=cohort.get(key, CohortFacts()))
        histories.append(history)
    return Found(histories=tuple(histories), unread=unread)


def _read(
    folder: Path, receive: Receive
) -> tuple[dict[tuple[str, str], list[InstanceFacts]], list[RejectionNote], tuple[tuple[str, int], ...]]:
    """Read every file in the sacrificial child: images by patient, rejection notes, and what was neither, by reason."""
    facts: dict[tuple[str, str], list[InstanceFacts]] = defaultdict(list)
    notes: list[RejectionNote] = []
    unread: Counter[str] = Counter()
    with Reader(issuer_aliases=receive.issuer_aliases) as reader:
        for path in sorted(each for each in folder.rglob("*") if each.is_file()):
            answer = reader.read(path.resolve(), receive.default_issuer)
            if isinstance(answer, Unread):
                unread[answer.reason] += 1
            elif isinstance(answer, OwnReport):
                unread[STRUCTURED_REPORT] += 1
            elif isinstance(answer, RejectionNote):
                notes.append(answer)
            else:
                facts[answer.patient.key].append(answer)
    return facts, notes, tuple(unread.most_common())

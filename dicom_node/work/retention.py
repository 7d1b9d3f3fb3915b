"""Retention by patient: the bytes that a live case may still need stay, the others age out.

Nothing is marked as needed; it is derived, as everything else. A case is live unless its patient is ineligible or
surveillance has ended. A live case may need every series that the rules give one of its roles, whether it is usable
today or not: a missing slice may come, a surgery date may be corrected. Runs at work and reports on their way need
what they are made of, and files that contradict each other stay until a person has looked at them.

The ledger forgets first, then the file goes. A crash in between leaves a file that nobody is promised, which the
start-up scan deletes. What was read of an aged-out instance stays, so that the time line does not change; a run that
wants its bytes again waits until they were fetched from an archive (`ledger.retention.missing_series`).
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Final

from sqlalchemy.exc import OperationalError

from dicom_node import events
from dicom_node.ledger import cases, patients, retention
from dicom_node.ledger.tables import CaseState
from dicom_node.work.known import read_known

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from sqlalchemy import Connection

    from dicom_node.ledger.database import Database
    from dicom_node.ledger.patients import Patient
    from dicom_node.ledger.retention import StoredFile
    from dicom_node.observe.logs import Log
    from dicom_node.receive.files import InstanceFiles
    from dicom_node.work.judge import Rules
    from dicom_node.work.tasks import ServedTask

NOT_LIVE: Final = frozenset({CaseState.INELIGIBLE, CaseState.ENDED})


@dataclass(frozen=True, kw_only=True)
class ImageSweep:
    """Deletes received files that no live case needs, once they are older than `retention.images_days`."""

    rules: Rules
    database: Database
    files: InstanceFiles
    tasks: Mapping[str, ServedTask]
    log: Log

    def run_once(self, now: datetime) -> int:
        """Let age out what may; return how many files were deleted."""
        before = self._before(now)
        if before is None:
            return 0
        with self.database.read() as ledger:
            leftovers = retention.old_leftovers(ledger, before)
            pinned = retention.needed_by_runs(ledger) | retention.contradicted(ledger)
            waiting = retention.patients_with_old_images(ledger, before)
        with self.database.write() as ledger:
            retention.age_out(ledger, leftovers)
        removed = self._delete(leftovers)
        for patient in waiting:
            removed += self._sweep_patient(patient, before, pinned)
        if removed:
            self.log.info(events.IMAGES_AGED_OUT, removed=removed)
        return removed

    def _before(self, now: datetime) -> datetime | None:
        """Return since when a study must have been quiet; one that is still open never ages out."""
        days = self.rules.settings.retention.images_days
        if days is None:
            return None
        receive = self.rules.settings.receive
        longest_open = timedelta(seconds=receive.quiet_period_s + receive.max_wait_s)
        return now - max(timedelta(days=days), longest_open)

    def _sweep_patient(self, patient: Patient, before: datetime, pinned: set[str]) -> int:
        try:
            with self.database.read() as ledger:
                needed = pinned | self._needed(ledger, patient)
                old = retention.old_images(ledger, patient.row_id, before)
            unneeded = [each for each in old if each.sop_instance_uid not in needed]
            with self.database.write() as ledger:
                if patients.get(ledger, patient.row_id).revision != patient.revision:
                    return 0  # something new is known: what is needed is derived again at the next sweep
                retention.age_out(ledger, unneeded)
            return self._delete(unneeded)
        except OperationalError:
            raise  # the ledger is away, not the patient at fault
        except Exception as error:  # noqa: BLE001 - the edge: one patient must not stop the others
            self.log.failure(events.TICK_FAILED, error, patient=self.log.pseudonym(patient.issuer, patient.patient_id))
            return 0

    def _needed(self, ledger: Connection, patient: Patient) -> set[str]:
        """Return the instances that a live case of a patient may need."""
        states = {each.task: each.state for each in cases.of_patient(ledger, patient.row_id)}
        live = [served for name, served in self.tasks.items() if states.get(name) not in NOT_LIVE]
        if not live:
            return set()
        known = read_known(ledger, patient)
        return {
            instance.sop_instance_uid
            for served in live
            for study in known.time_line(served.task, self.rules.selection).studies
            for series in study.series
            if series.verdict.role in served.task.roles.wanted
            for instance in series.instances
        }

    def _delete(self, files: Sequence[StoredFile]) -> int:
        for each in files:
            self.files.remove(each.path)
        return len(files)

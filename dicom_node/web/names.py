"""Pseudonyms as addresses of pages: the same keyed hash as in the log, so that a log line leads to its patient."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from dicom_node.ledger import patients, survey

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from dicom_node.ledger.patients import Patient
    from dicom_node.observe.logs import Log


class Names:
    """Finds the patient of a pseudonym; a keyed hash cannot be turned round, so every patient's is kept in memory."""

    def __init__(self, log: Log) -> None:
        self._log = log
        self._rows: dict[str, int] = {}
        self._newest = 0
        self._guard = threading.Lock()

    def of(self, patient: Patient) -> str:
        """Return the pseudonym of a patient."""
        return self._log.pseudonym(patient.issuer, patient.patient_id)

    def find(self, ledger: Connection, pseudonym: str) -> Patient | None:
        """Return whom a pseudonym stands for; of a retired ID, the patient it was merged into."""
        with self._guard:
            self._read(ledger)
            row_id = self._rows.get(pseudonym)
            found = None if row_id is None else survey.patient_of_row(ledger, row_id)
            if found is None or self.of(found) != pseudonym:  # purged, and the number of the row given anew
                self._rows, self._newest = {}, 0
                self._read(ledger)
                row_id = self._rows.get(pseudonym)
        return None if row_id is None else patients.get(ledger, patients.survivor(ledger, row_id))

    def _read(self, ledger: Connection) -> None:
        for each in survey.patients_after(ledger, self._newest):
            self._rows[self.of(each)] = each.row_id
            self._newest = max(self._newest, each.row_id)

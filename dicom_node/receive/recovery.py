"""Takes back reports that this node issued and does not know any more: fetched from an archive, read, entered.

Only what we asked an archive for counts. A report of ours that somebody sends comes back as it is, our own output, and
one of another node of the same make is somebody else's.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from dicom_node import events
from dicom_node.ledger import arrivals, recovered
from dicom_node.ledger.tables import ArrivalState
from dicom_node.receive.files import write_durably

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime
    from pathlib import Path

    from dicom_node.ledger.arrivals import PendingArrival
    from dicom_node.ledger.database import Database
    from dicom_node.observe.logs import Log
    from dicom_node.priors.own_reports import OwnReport

OUR_OWN = "our own output"
READ_BACK = "our own report, read back"
CONTRADICTS = "a report of ours that contradicts the run it names: another patient, task or inputs"
ENTERED = {recovered.Recovery.RECOVERED, recovered.Recovery.WITHDRAWN}


@dataclass(frozen=True, slots=True, kw_only=True)
class Recovery:
    """Enters what was read back; the bytes are kept in the outbox, where those of every report lie."""

    ae_title: str
    outbox: Path
    database: Database
    clock: Callable[[], datetime]
    log: Log

    def enter(self, pending: PendingArrival, file: Path, report: OwnReport) -> None:
        """Enter one report, or set it aside where it is not ours to take back, or contradicts its run.

        Raises:
            OSError: if the disk says no.
        """
        with self.database.read() as ledger:
            archive = recovered.archive_of(ledger, pending.arrival_id)
        if archive is None or report.station_ae_title != self.ae_title:
            ours = report.station_ae_title == self.ae_title
            with self.database.write() as ledger:
                reason = OUR_OWN if ours else "a report of another node"
                arrivals.set_aside(ledger, pending.arrival_id, ArrivalState.NOT_AN_INPUT, reason)
            return
        content = file.read_bytes()
        with self.database.write() as ledger:
            found = recovered.enter(
                ledger, report, archive=archive, sha256=hashlib.sha256(content).hexdigest(), now=self.clock()
            )
            reason = CONTRADICTS if found is recovered.Recovery.CONTRADICTS else READ_BACK
            arrivals.set_aside(ledger, pending.arrival_id, ArrivalState.NOT_AN_INPUT, reason)
            if found in ENTERED:  # the rows are committed after the bytes are durable
                write_durably(self.outbox / recovered.outbox_name(report), (content,))
        self.log.info(
            events.REPORT_READ_BACK,
            run=report.run_key[:12],
            task=report.task,
            version=report.version,
            archive=archive,
            state=found.value,
        )

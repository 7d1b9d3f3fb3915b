"""A node with one encoded report, and a postman to take it to archives."""

from __future__ import annotations

import shutil
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from dicom_node.deliver.consignment import job_key
from dicom_node.deliver.postman import Postman
from dicom_node.ledger import deliveries, patients, runs, tables
from dicom_node.observe.logs import open_log
from dicom_node.settings import Logging
from tests.factories.bench import NOW, Bench, no_archive
from tests.factories.flair import ISSUER

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime
    from io import StringIO
    from pathlib import Path

    from sqlalchemy import Connection

    from dicom_node.ledger.deliveries import Delivery


def encode_report(folder: Path, studies: Sequence[Path]) -> None:
    """Make a node's data folder whose report on these files waits for two destinations, "main" and "second"."""
    entries = [{"name": each, "orthanc": {"url": "http://127.0.0.1:9"}} for each in ("main", "second")]
    bench = Bench(folder, pacs=entries)
    bench.receive(*studies)
    for _ in range(2):
        bench.now += timedelta(minutes=5)
        bench.tick()
    bench.database.close()


class Outgoing:
    """The node of `encode_report`, on a copy of its folder, with these archives."""

    def __init__(
        self, encoded: Path, folder: Path, entries: Sequence[dict[str, Any]], log: StringIO, *, ae_title: str = "NODE"
    ) -> None:
        shutil.copytree(encoded, folder)
        self.alive = True
        self.folder = folder
        self.bench = Bench(folder, pacs=entries)
        self.bench.now = NOW + timedelta(hours=1)
        node = self.bench.settings.node.model_copy(update={"ae_title": ae_title})
        self.settings = self.bench.settings.model_copy(update={"node": node})
        self.log = open_log(Logging(level="info", format="json"), b"key", log)
        self.postman = Postman(
            self.settings,
            self.bench.database,
            self.bench.folders.outbox,
            self.log,
            clock=self.clock,
            archive_for=no_archive,
        )
        names = {each["name"] for each in entries}
        with self.bench.database.write() as ledger:
            for each in deliveries.of_run(ledger, self._run(ledger).run_key):
                if each.destination not in names:
                    ledger.execute(tables.delivery.delete().where(tables.delivery.c.destination == each.destination))

    def clock(self) -> datetime:
        """Return the time there is; where the process was killed, nothing goes on."""
        if not self.alive:
            raise KeyboardInterrupt
        return self.bench.now

    def later(self, **span: float) -> None:
        """Let time pass, and everything that is due be attempted once."""
        self.bench.now += timedelta(**span)
        with self.bench.database.read() as ledger:
            keys = [job_key(each.delivery) for each in deliveries.due(ledger, self.bench.now)]
        for key in keys:
            self.postman.deliver(key)

    @property
    def run(self) -> runs.Run:
        """The only run."""
        with self.bench.database.read() as ledger:
            return self._run(ledger)

    def delivery(self, name: str = "main") -> Delivery:
        """Return where a destination stands."""
        with self.bench.database.read() as ledger:
            found = deliveries.get(ledger, self._run(ledger).run_key, name)
        assert found is not None
        return found

    def objects(self, *kinds: str) -> list[runs.OutboxObject]:
        """Return what was encoded of these kinds, of all kinds where none is named."""
        with self.bench.database.read() as ledger:
            found = runs.objects_of(ledger, self._run(ledger).run_key)
        return [each for each in found if not kinds or each.kind in kinds]

    def held_by(self, name: str = "main") -> list[str]:
        """Return the kinds of what a destination holds or may hold."""
        with self.bench.database.read() as ledger:
            found = deliveries.get(ledger, self._run(ledger).run_key, name)
            assert found is not None
            return [each.kind for each in deliveries.held_by(ledger, found)]

    def _run(self, ledger: Connection) -> runs.Run:
        named = patients.find(ledger, "PHANTOM-1", ISSUER)
        (found,) = runs.of_patient(ledger, named[0].row_id)
        return found

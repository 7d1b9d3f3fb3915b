"""A node's search for older studies without its tick: real ledger, listener, reader and librarian, a clock to set."""

from __future__ import annotations

import io
import threading
from datetime import UTC, date, datetime, timedelta
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np
from sqlalchemy import select

from dicom_node.demo_pacs import free_port
from dicom_node.ledger import patients, priors
from dicom_node.ledger.database import Database
from dicom_node.ledger.tables import arrival, instance
from dicom_node.observe.logs import open_log
from dicom_node.priors import search
from dicom_node.priors.librarian import Librarian
from dicom_node.receive.files import InstanceFiles
from dicom_node.receive.indexer import Indexer
from dicom_node.receive.intake import Intake, Origin
from dicom_node.receive.listener import Listener
from dicom_node.receive.reader import Reader
from dicom_node.settings import Logging, Settings
from tests.factories.facts import uid
from tests.factories.mr import classic_series, write
from tests.factories.peers import NODE_AE

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from dicom_node.timeline.decision import PriorsState

ISSUER = "HOSPITAL"
PATIENT_ID = "SENTINEL-4711"
START = datetime(2026, 3, 1, 12, tzinfo=UTC)


def a_study(
    folder: Path, day: date, *, slices: int = 3, rows: int = 16, series: int = 1, **attributes: Any
) -> list[Path]:
    """Write a small MR study of a day, one file per slice; `attributes` overwrite what its headers say."""
    rng = np.random.default_rng(day.toordinal())
    said = {"PatientID": PATIENT_ID, "PatientBirthDate": "20150101", "PatientSex": "F"}
    said |= dict.fromkeys(("StudyDate", "SeriesDate", "AcquisitionDate"), f"{day:%Y%m%d}")
    study_uid = uid("study", day, sorted(attributes.items()))
    paths = []
    for number in range(series):
        name = f"{day} {number} {sorted(attributes.items())}"
        pixels = rng.integers(0, 900, (slices, rows, rows), dtype=np.uint16)
        made = classic_series(
            pixels,
            np.diag([4.0, 4.0, 6.0, 1.0]),
            name=name,
            **{"SeriesDescription": f"AX FLAIR {number}", "StudyInstanceUID": study_uid, **said, **attributes},
        )
        paths += write(made, folder / f"{day}-{number}-{len(attributes)}")
    return paths


class Library:
    """Asks and fetches as the node does, when told to."""

    def __init__(
        self,
        folder: Path,
        *pacs: dict[str, Any],
        port: int = 0,
        files: Callable[[Path], InstanceFiles] = InstanceFiles,
        issuer_aliases: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        self.settings = Settings.model_validate(
            {
                "node": {"ae_title": NODE_AE, "port": port or free_port(), "data_dir": folder},
                "receive": {
                    "peers": [{"ae_title": "SCANNER1", "hosts": ["127.0.0.1"], "default_issuer": ISSUER}],
                    "min_free_disk_gb": 0,
                    "quiet_period_s": 60,
                    "issuer_aliases": dict(issuer_aliases),
                },
                "pacs": pacs,
                "tasks": ["glioma-recurrence"],
            }
        )
        self.now = START
        folder.mkdir(parents=True)
        self.database = Database(self.settings.ledger_url)
        self.database.migrate()
        self.files = files(folder / "instances")
        self.files.prepare()
        self.log = io.StringIO()
        log = open_log(Logging(level="info", format="json"), b"key", self.log)
        self.librarian = Librarian(self.settings, self.database, self.files, log, lambda: self.now)
        self._listener = Listener(self.settings, self.database, self.files, log)
        self._reader = Reader(issuer_aliases=issuer_aliases)
        self._indexer = Indexer(self.database, self.files, self._reader, log)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._index)

    def start(self) -> None:
        """Listen and read."""
        self._listener.start()
        self._thread.start()

    def stop(self) -> None:
        """End both."""
        self._stop.set()
        self._thread.join()
        self._listener.stop()
        self._reader.close()
        self.database.close()

    def _index(self) -> None:
        while not self._stop.wait(0.02):
            self._indexer.run_once()

    def receive(self, paths: list[Path]) -> None:
        """Take files in as from the scanner, and let the quiet period pass."""
        origin = Origin(name="SCANNER1", default_issuer=ISSUER)
        intake = Intake(self.database, self.files, origin, lambda: self.now)
        for path in paths:
            intake.take(path.read_bytes())
        while self.states().get("received"):
            self._stop.wait(0.02)
        self.now += timedelta(seconds=90)

    @property
    def row(self) -> int:
        """The row of the patient."""
        with self.database.read() as ledger:
            (found,) = patients.find(ledger, PATIENT_ID, ISSUER)
        return found.row_id

    def look(self) -> PriorsState:
        """Say how far the search is."""
        with self.database.read() as ledger:
            return search.look(ledger, self.row, settings=self.settings, held_studies=self.held(), now=self.now)

    def ensure(self, *, waiting: bool = False) -> None:
        """Open the questions that are due."""
        row, held = self.row, self.held()
        with self.database.write() as ledger:
            search.ensure(ledger, row, settings=self.settings, held_studies=held, waiting=waiting, now=self.now)

    def due(self) -> list[tuple[str, str]]:
        """Return what is due now."""
        with self.database.read() as ledger:
            return search.due(ledger, settings=self.settings, now=self.now)

    def work(self, *, most: int = 100) -> int:
        """Do what is due until nothing is; return how many jobs that were."""
        done = 0
        while done < most and (jobs := self.due()):
            for kind, key in jobs:
                (self.librarian.look_up if kind == search.LOOKUP else self.librarian.fetch)(key)
                done += 1
        return done

    def held(self) -> set[str]:
        """Return the studies of which instances are held under the patient."""
        with self.database.read() as ledger:
            query = select(instance.c.study_instance_uid).where(instance.c.patient == self.row)
            return set(ledger.scalars(query))

    def instances(self) -> set[str]:
        """Return the SOP Instance UIDs held of anybody."""
        with self.database.read() as ledger:
            return set(ledger.scalars(select(instance.c.sop_instance_uid)))

    def states(self) -> dict[str, int]:
        """Count the files by what became of them."""
        with self.database.read() as ledger:
            states = list(ledger.scalars(select(arrival.c.state)))
        return {state: states.count(state) for state in set(states)}

    def sources(self) -> set[str | None]:
        """Return the archives that files were fetched from; None: sent to us."""
        with self.database.read() as ledger:
            return set(ledger.scalars(select(arrival.c.fetched_from)))

    def counts(self) -> dict[str, int]:
        """Return how many instances the archives say each series has."""
        with self.database.read() as ledger:
            return priors.instance_counts(ledger, self.row)

    def summary(self) -> list[dict[str, Any]]:
        """Return what is shown of the search."""
        with self.database.read() as ledger:
            return priors.summary(ledger, self.row)

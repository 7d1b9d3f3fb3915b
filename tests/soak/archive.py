"""An archive that fails one time in five, as a process of its own: `python -m tests.soak.archive --help`.

It keeps the bytes of every object that it took, acknowledged or not, and writes down each time what it took and how it
answered. Its failures: it rejects the association; it answers out of resources; it aborts before it has an object; it
has it and aborts instead of answering; it has it and answers out of resources.
"""

from __future__ import annotations

import hashlib
import json
import random
import threading
import time
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from pydicom.uid import (
    Comprehensive3DSRStorage,
    ComprehensiveSRStorage,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    MultiFrameTrueColorSecondaryCaptureImageStorage,
    SecondaryCaptureImageStorage,
)
from pynetdicom import AE, evt

from tests.soak.power.record import mark

if TYPE_CHECKING:
    from collections.abc import Iterator

IMAGES = (MultiFrameTrueColorSecondaryCaptureImageStorage, SecondaryCaptureImageStorage)
REPORTS = {"3d": Comprehensive3DSRStorage, "plain": ComprehensiveSRStorage}
OUT_OF_RESOURCES = 0xA700
HELD = "held"  # first word of a mark


class Failure(StrEnum):
    """How an archive fails."""

    REJECT = "reject"
    REFUSE = "refuse"
    ABORT = "abort"
    TAKE_AND_ABORT = "take and abort"
    TAKE_AND_REFUSE = "take and refuse"


class FailingArchive:
    """A storage SCP; which association fails, how and at which object, the seed says."""

    def __init__(
        self, folder: Path, *, ae_title: str, report: str, failing: float, seed: int, record: Path | None = None
    ) -> None:
        self._folder = folder
        self._record = record  # of what is written to the node's data folder: it is marked what we hold
        self._failing = failing
        self._rng = random.Random(seed)
        self._lock = threading.Lock()
        self._plans: dict[int, tuple[Failure, int]] = {}  # association -> how it fails, after so many objects
        self._ae = AE(ae_title=ae_title)
        self._ae.maximum_associations = 50
        for sop_class_uid in (*IMAGES, REPORTS[report]):
            self._ae.add_supported_context(sop_class_uid, [ExplicitVRLittleEndian, ImplicitVRLittleEndian])

    def serve(self, port: int) -> None:
        """Serve until killed."""
        handlers = [(evt.EVT_REQUESTED, self._requested), (evt.EVT_C_STORE, self._store)]
        self._ae.start_server(("127.0.0.1", port), block=True, evt_handlers=handlers)

    def _requested(self, event: evt.Event) -> None:
        with self._lock:
            fails = self._rng.random() < self._failing
            plan = self._rng.choice(list(Failure)), self._rng.randrange(3)
        if not fails:
            self._plans.pop(id(event.assoc), None)
            return
        if plan[0] is Failure.REJECT:
            self._note(how=plan[0])
            event.assoc.acse.send_reject(0x02, 0x03, 0x02)  # transient, presentation layer, local limit: PS3.8 9.3.4
            event.assoc.kill()
            return
        self._plans[id(event.assoc)] = plan

    def _store(self, event: evt.Event) -> int:
        how, after = self._plans.get(id(event.assoc), (None, 0))
        self._plans[id(event.assoc)] = (how, after - 1)
        failure = how if after == 0 else None
        uid, content = str(event.request.AffectedSOPInstanceUID), event.encoded_dataset(include_meta=False)
        if failure not in {Failure.REFUSE, Failure.ABORT}:
            self._keep(uid, event, content)
        self._note(
            how=failure or "acknowledged",
            uid=uid,
            sha256=hashlib.sha256(content).hexdigest(),
            syntax=str(event.context.transfer_syntax),
        )
        if failure in {Failure.ABORT, Failure.TAKE_AND_ABORT}:
            event.assoc.abort()
        return OUT_OF_RESOURCES if failure is not None else 0x0000

    def _keep(self, uid: str, event: evt.Event, content: bytes) -> None:
        path = self._folder / f"{uid}.dcm"
        if not path.exists():
            path.write_bytes(event.encoded_dataset())
        if self._record is not None:
            mark(self._record, f"{HELD} {self._folder.name} {uid}")

    def _note(self, **what: Any) -> None:
        with self._lock, (self._folder / "answers.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps({"at": time.time(), **what}) + "\n")


def answers(folder: Path) -> Iterator[dict[str, Any]]:
    """Give what an archive wrote down, in order."""
    path = folder / "answers.jsonl"
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else ():
        yield json.loads(line)


@click.command()
@click.option("--folder", type=click.Path(path_type=Path, file_okay=False), required=True)
@click.option("--port", type=int, required=True)
@click.option("--ae-title", required=True)
@click.option("--report", type=click.Choice(list(REPORTS)), default="3d", help="The SR class that it takes.")
@click.option("--failing", type=float, default=0.2, help="The share of associations that fail.")
@click.option("--seed", type=int, default=0)
@click.option("--record", type=click.Path(path_type=Path), help="Mark there what is held.")
def main(folder: Path, port: int, **options: Any) -> None:
    """Be an archive that fails at times."""
    folder.mkdir(parents=True, exist_ok=True)
    FailingArchive(folder, **options).serve(port)


if __name__ == "__main__":
    main()

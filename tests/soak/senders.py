"""Scanners that send each instance until it is acknowledged, and remember what was."""

from __future__ import annotations

import json
import queue
import random
import threading
import time
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final

from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage
from pynetdicom import AE, _config

from tests.factories.peers import NODE_AE, SCANNER_AE
from tests.soak.patients import sop_instance_uid

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from pynetdicom.association import Association

    from tests.soak.patients import Study

PAUSE_S: Final = 0.2
TIMEOUT_S: Final = 20


@dataclass
class Senders:
    """Threads that send studies, each over associations of its own, again and again until all is acknowledged."""

    port: int
    record: Path  # a line for each acknowledged instance, so that a run can be taken up again
    count: int = 2
    on_acknowledged: Callable[[str], None] = lambda _uid: None
    acknowledged: dict[str, str] = field(default_factory=dict)  # SOP Instance UID -> path
    again: int = 0  # instances sent again because the answer was lost or a failure

    def __post_init__(self) -> None:
        """Take up what was acknowledged before."""
        _config.STORE_SEND_CHUNKED_DATASET = True  # the bytes of the file, as they are
        self._waiting: queue.Queue[Study] = queue.Queue()
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        self._threads: list[threading.Thread] = []
        if self.record.exists():
            for line in self.record.read_text(encoding="utf-8").splitlines():
                found = json.loads(line)
                self.acknowledged[found["uid"]] = found["path"]

    def start(self) -> None:
        """Begin to send."""
        self._threads = [
            threading.Thread(target=self._send_all, args=(number,), daemon=True) for number in range(self.count)
        ]
        for each in self._threads:
            each.start()

    def put(self, studies: Iterable[Study]) -> None:
        """Have studies sent."""
        for each in studies:
            self._waiting.put(each)

    def put_again(self, study: Study) -> None:
        """Have a study sent once more, acknowledged or not: a duplicate, as archives send them."""
        self._waiting.put(replace(study, again=True))

    @property
    def idle(self) -> bool:
        """Whether everything that was given has been acknowledged."""
        return self._waiting.unfinished_tasks == 0

    def stop(self) -> None:
        """Send no more."""
        self._stopping.set()
        for each in self._threads:
            each.join()

    def _send_all(self, number: int) -> None:
        rng = random.Random(number)
        while not self._stopping.is_set():
            try:
                study = self._waiting.get(timeout=PAUSE_S)
            except queue.Empty:
                continue
            done = set() if study.again else set(self.acknowledged)
            left = [path for path in study.paths if sop_instance_uid(path) not in done]
            while left and not self._stopping.is_set():
                left = self._send(left)
                if left:
                    time.sleep(PAUSE_S * rng.uniform(0.5, 2))
            self._waiting.task_done()

    def _send(self, paths: list[Path]) -> list[Path]:
        """Send over one association; return what was not acknowledged."""
        association = self._associate()
        left = list(paths)
        try:
            while left and association.is_established and not self._stopping.is_set():
                if not self._store(association, left[0]):
                    self.again += 1
                    break
                del left[0]
        finally:
            if association.is_established:
                association.release()
        return left

    def _associate(self) -> Association:
        ae = AE(ae_title=SCANNER_AE)
        ae.connection_timeout = ae.acse_timeout = ae.dimse_timeout = ae.network_timeout = TIMEOUT_S
        ae.add_requested_context(MRImageStorage, ExplicitVRLittleEndian)
        return ae.associate("127.0.0.1", self.port, ae_title=NODE_AE)

    def _store(self, association: Association, path: Path) -> bool:
        try:
            response = association.send_c_store(path)
        except (RuntimeError, OSError):
            return False
        if "Status" not in response or response.Status != 0x0000:
            return False
        uid = sop_instance_uid(path)
        with self._lock, self.record.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"uid": uid, "path": str(path)}) + "\n")
            self.acknowledged[uid] = str(path)
        self.on_acknowledged(uid)
        return True

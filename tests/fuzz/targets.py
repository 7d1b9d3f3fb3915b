"""What is fuzzed, each with what must hold of it. A case is a few named files; the same seed and number make the same.

| target | what runs | what must hold |
|---|---|---|
| headers | the reader's function for one file, then the series rules | an answer that survives JSON; no identity |
| reader | intake, ledger and sacrificial reader | every file ends in one state; the next good file is read |
| volume | the reading of a series as a volume | a volume, or `VolumeError` or `GeometryError` |
| roles | the series rules on odd attributes | parts and descriptions, never an error |
| hl7 | framing and registry, with its ledger | one acknowledgment for each message |
| pdu | a listening node, over TCP | it closes what is broken, serves on, gives back threads, files and memory |
"""

from __future__ import annotations

import contextlib
import json
import shutil
import socket
import tempfile
import warnings
from collections import Counter
from datetime import UTC, date, datetime
from io import StringIO
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Final, Protocol

from dicom_node.errors import PeerError
from dicom_node.ledger import arrivals
from dicom_node.ledger.database import Database
from dicom_node.observe.logs import open_log
from dicom_node.receive import reader as reading
from dicom_node.receive.files import InstanceFiles
from dicom_node.receive.hl7 import Registry
from dicom_node.receive.indexer import Indexer
from dicom_node.receive.intake import Intake, Origin
from dicom_node.receive.mllp import BrokenFrame, frame, read_blocks
from dicom_node.receive.reader import Reader
from dicom_node.resources import selection_file
from dicom_node.settings import Logging, Settings
from dicom_node.timeline.model import InstanceFacts
from dicom_node.timeline.roles import classify_parts
from dicom_node.timeline.selection import load_selection
from dicom_node.timeline.series import describe_series
from inference.geometry import GeometryError
from inference.volume import VolumeError, read_series
from tests.factories.facts import a_series, a_task
from tests.factories.mr import SENTINEL_ID
from tests.fuzz import messages, pdus
from tests.fuzz.attributes import odd_attributes
from tests.fuzz.make_corpus import SEEDS, SLICES
from tests.fuzz.mutations import BYTE_MUTATIONS, mutate
from tests.fuzz.served import Served

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

Case = dict[str, bytes]
GOOD: Final = "classic-0.dcm"
IMAGES: Final = tuple(f"classic-{number}.dcm" for number in range(SLICES))
IDENTITY: Final = SENTINEL_ID.split("-")[0]  # stands in the name, too
EVERY: Final = 25  # cases between two looks at whether good input still gets through
YES, NO = True, False
MOST_FILES: Final = 400  # of a data folder before it is made anew


class DefectError(AssertionError):
    """Something that must hold did not."""


class Target(Protocol):
    """One thing that is fuzzed."""

    @staticmethod
    def make(chance: Random) -> Case:
        """Return a case."""

    def run(self, case: Case) -> str:
        """Run a case and return in one word what became of it; raise whatever must not happen."""

    def close(self) -> None:
        """Give everything back; raise `DefectError` where something was not left as it should be."""


def mutated(chance: Random) -> bytes:
    """Return a mutated seed; of a compressed one only the bytes, of others the structure."""
    path = chance.choice(_seeds())
    content = path.read_bytes()
    if path.name.startswith("other-"):
        for _ in range(chance.randint(1, 3)):
            content = chance.choice(BYTE_MUTATIONS[:-1])(content, chance)
        return content
    return mutate(content, chance)


class Headers:
    """The function that the sacrificial reader runs, and the rules on what it found."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / "case.dcm"
        self._roles = Roles(folder)

    @staticmethod
    def make(chance: Random) -> Case:
        """Return a mutated file."""
        return {"case.dcm": mutated(chance)}

    def run(self, case: Case) -> str:
        """Read the file as the child does."""
        self._path.write_bytes(case["case.dcm"])
        answer = reading._answer({"path": str(self._path), "default_issuer": "FUZZ"})
        said = json.loads(json.dumps(answer, allow_nan=False))
        json.dumps(answer, ensure_ascii=False).encode()  # no lone surrogate that a database would refuse
        if "facts" in said:
            facts = InstanceFacts.from_json(said["facts"])
            _expect("facts survive JSON", facts.to_json(), answer["facts"])
            self._roles.judge([facts])
            return "facts"
        if "reason" in said:
            _expect("identity in a reason", IDENTITY in said["reason"], NO)
            return str(said["reason"]).split(":")[0]
        return next(iter(said))

    def close(self) -> None:
        """Leave nothing."""
        self._path.unlink(missing_ok=True)


class Readers:
    """Files by the way in for files, the indexer, and the sacrificial reader as its own process."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._reader = Reader(timeout_s=120)
        self._count = 0
        self._good = (SEEDS / GOOD).read_bytes()
        self._open()

    @staticmethod
    def make(chance: Random) -> Case:
        """Return a mutated file."""
        return {"case.dcm": mutated(chance)}

    def run(self, case: Case) -> str:
        """Take the file, index until nothing is pending, and now and then a good one."""
        self._count += 1
        if self._count % MOST_FILES == 0:
            self._database.close()
            self._open()
        outcome = self._take(case["case.dcm"])
        if self._count % EVERY == 0:
            self.check()
        return outcome

    def check(self) -> None:
        """Expect a good file to be read."""
        outcome = self._take(self._good)
        if outcome not in {"indexed", "duplicate", "conflict"}:
            msg = f"a good file was not read: {outcome}"
            raise DefectError(msg)

    def close(self) -> None:
        """Expect a good file to be read, and end the child."""
        try:
            self.check()
        finally:
            self._reader.close()
            self._database.close()

    def _open(self) -> None:
        home = self._folder / "node"
        shutil.rmtree(home, ignore_errors=True)
        home.mkdir(parents=True)
        self._database = Database(f"sqlite:///{home / 'ledger.sqlite'}")
        self._database.migrate()
        self._files = InstanceFiles(home / "instances")
        self._files.prepare()
        self._log = StringIO()
        log = open_log(Logging(format="json"), b"key", self._log)
        origin = Origin(name="FUZZ", default_issuer="FUZZ")
        self._intake = Intake(self._database, self._files, origin, lambda: datetime.now(UTC))
        self._indexer = Indexer(self._database, self._files, self._reader, log)

    def _take(self, content: bytes) -> str:
        before = self._states()
        try:
            self._intake.take(content)
        except PeerError:
            _expect("rows after a refusal", self._states(), before)
            return "refused"
        for _ in range(arrivals.MOST_TRIES + 1):
            if not self._indexer.run_once():
                break
        _expect("pending files", self._indexer.run_once(), 0)
        found = self._states() - before
        _expect("states of one file", sum(found.values()), 1)
        _expect("identity in the log", IDENTITY in self._log.getvalue(), NO)
        _empty(self._log)
        return next(iter(found))

    def _states(self) -> Counter[str]:
        with self._database.read() as ledger:
            return Counter(arrivals.counts_by_state(ledger))


class Volumes:
    """A small series, some of whose slices are wrong."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    @staticmethod
    def make(chance: Random) -> Case:
        """Return the slices, the same mutation in all or in one; or an enhanced object alone."""
        if chance.random() < 0.3:
            return {"enhanced.dcm": mutate((SEEDS / "enhanced.dcm").read_bytes(), chance)}
        case, seed = {name: (SEEDS / name).read_bytes() for name in IMAGES}, chance.getrandbits(32)
        for name in chance.choice((IMAGES, IMAGES[:1], IMAGES[1:])):
            case[name] = mutate(case[name], Random(seed))
        return case

    def run(self, case: Case) -> str:
        """Read the series."""
        paths = [self._folder / name for name in case]
        for path in paths:
            path.write_bytes(case[path.name])
        try:
            volume = read_series(paths)
        except (VolumeError, GeometryError) as error:
            _expect("identity in an error", IDENTITY in str(error), NO)
            return type(error).__name__
        _expect("slices", len(volume.slices), volume.array.shape[0])
        return "volume"

    def close(self) -> None:
        """Leave nothing."""
        for name in (*IMAGES, "enhanced.dcm"):
            (self._folder / name).unlink(missing_ok=True)


class Roles:
    """The series rules on attributes as no scanner sends them."""

    def __init__(self, _folder: Path) -> None:
        self._selection = load_selection(selection_file(None))
        self._task = a_task()

    @staticmethod
    def make(chance: Random) -> Case:
        """Return a series whose instances have odd attributes."""
        series = [json.loads(each.to_json()) for each in a_series(date(2025, 6, 2), slices=4)]
        for each in series:
            each["attributes"] = odd_attributes(each["attributes"], chance)
        return {"facts.json": json.dumps(series).encode()}

    def run(self, case: Case) -> str:
        """Ask the rules."""
        return self.judge([InstanceFacts.from_json(json.dumps(each)) for each in json.loads(case["facts.json"])])

    def judge(self, facts: list[InstanceFacts]) -> str:
        """Classify and describe a series; the order of its instances must not matter."""
        parts = classify_parts(facts, self._selection)
        _expect("instances in parts", sum(len(each.instances) for each in parts), len(facts))
        again = classify_parts(facts[::-1], self._selection)
        _expect("verdicts in another order", [each.verdict for each in again], [each.verdict for each in parts])
        described = describe_series(facts, self._selection, self._task)
        _expect("descriptions", len(described), len(parts))
        return parts[0].verdict.name

    def close(self) -> None:
        """Nothing to leave."""


class Messages:
    """HL7 over MLLP: framing, reading, entering, answering."""

    def __init__(self, folder: Path) -> None:
        settings = Settings.model_validate(
            {
                "node": {"ae_title": "NODE", "data_dir": folder},
                "receive": {"allow_unknown_peers": True},
                "tasks": ["glioma-recurrence"],
            }
        )
        self._database = Database(f"sqlite:///{folder / 'hl7.sqlite'}")
        self._database.migrate()
        self._log = StringIO()
        self._registry = Registry(settings, self._database, open_log(Logging(format="json"), b"key", self._log))

    @staticmethod
    def make(chance: Random) -> Case:
        """Return what a sender writes to the connection."""
        return {"stream.hl7": messages.stream(chance)}

    def run(self, case: Case) -> str:
        """Answer every block as the server does."""
        ours, theirs = socket.socketpair()
        with ours, theirs:
            theirs.setblocking(False)
            with contextlib.suppress(BlockingIOError):  # what the buffer does not take was not sent
                theirs.send(case["stream.hl7"])
            theirs.shutdown(socket.SHUT_WR)
            outcome = "nothing"
            try:
                for content in read_blocks(ours, idle_s=1, block_s=1):
                    outcome = self._answer(content)
            except BrokenFrame:
                return "broken frame"
        return outcome

    def close(self) -> None:
        """Expect a good message to be accepted."""
        try:
            _expect("the answer to a good message", self._answer(messages.UPDATE), "AA")
        finally:
            self._database.close()

    def _answer(self, content: bytes) -> str:
        answer = self._registry.answer(content, "127.0.0.1")
        (found,) = list(read_blocks_of(frame(answer)))
        lines = found.split(b"\r")
        _expect("the answer's first segment", lines[0][:3], b"MSH")
        code = lines[1].split(lines[0][3:4])[1].decode()
        _expect("a known code", code in {"AA", "AE", "AR"}, YES)
        log = self._log.getvalue()
        _empty(self._log)
        _expect("the trace of an error nobody expected", '"trace"' in log, NO)
        _expect("identity in the log", messages.IDENTITY in log, NO)
        return code


def read_blocks_of(content: bytes) -> list[bytes]:
    """Return the blocks of what would come over a connection."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.sendall(content)
        theirs.shutdown(socket.SHUT_WR)
        return list(read_blocks(ours, idle_s=1, block_s=1))


class Pdus:
    """A listening node in a process of its own, and a peer that says what it likes."""

    def __init__(self, folder: Path, engine: str | None = None) -> None:
        self._node = Served(folder, engine=engine)
        self._count = 0
        self._node.store()
        self._node.calibrate()

    @staticmethod
    def make(chance: Random) -> Case:
        """Return what the peer sends, in order."""
        return {f"{number:02d}.pdu": part for number, part in enumerate(pdus.session(chance))}

    def run(self, case: Case) -> str:
        """Send it and read until the node has closed."""
        self._count += 1
        outcome = pdus.talk(self._node.port, [case[name] for name in sorted(case)])
        if outcome == "left open":
            msg = f"the node had not closed a connection after {pdus.CLOSED_WITHIN_S:.0f} s"
            raise DefectError(msg)
        if self._count % EVERY == 0:
            self._check()
        return outcome

    def close(self) -> None:
        """Expect the node to be alive, to store, and to have given back what broken peers used."""
        try:
            self._check()
            self._node.expect_settled()
        finally:
            self._node.stop()

    def _check(self) -> None:
        self._node.expect_alive()
        self._node.store()


TARGETS: Final[Mapping[str, type[Headers | Readers | Volumes | Roles | Messages | Pdus]]] = {
    "headers": Headers,
    "reader": Readers,
    "volume": Volumes,
    "roles": Roles,
    "hl7": Messages,
    "pdu": Pdus,
}
SHARES: Final = {"headers": 55, "reader": 5, "volume": 20, "roles": 10, "hl7": 5, "pdu": 5}  # percent of a campaign


def chance_of(seed: int, target: str, number: int) -> Random:
    """Return the source of chance of one case."""
    return Random(f"{seed} {target} {number}")


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep libraries from telling on standard error what they think of a file."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def open_target(name: str) -> tuple[Target, Path]:
    """Return a target in a new folder, and the folder."""
    folder = Path(tempfile.mkdtemp(prefix="dicom-node-fuzz-"))
    return TARGETS[name](folder), folder


def _seeds() -> list[Path]:
    return sorted(SEEDS.iterdir())


def _empty(log: StringIO) -> None:
    log.seek(0)
    log.truncate()


def _expect(what: str, found: object, wanted: object) -> None:
    if found != wanted:
        msg = f"{what}: expected {wanted!r:.300}, found {found!r:.300}"
        raise DefectError(msg)

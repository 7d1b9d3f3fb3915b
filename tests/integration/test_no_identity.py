"""Nobody's identity leaves a node but where it must: sentinel patients, everything that can happen, every output read.

A node of its own process receives images in several character sets, damaged ones, others that contradict each other,
HL7 messages and refused callers; its reader is killed, its archive away, its page asked for nonsense, its command line
used wrongly; it is killed and started again. Then logs, error pages, figures, process titles, names of files and what
lies outside the data folder are searched for everything that the sentinels are called, in every coding that was sent.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import time
from dataclasses import dataclass, field
from http.client import HTTPConnection
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import yaml
from click.testing import CliRunner
from pydicom import DataElement, Dataset, dcmread
from pydicom.datadict import tag_for_keyword
from pynetdicom import AE
from pynetdicom.sop_class import MRImageStorage, Verification  # type: ignore[attr-defined] # made at import time

from dicom_node.cli import main
from dicom_node.demo_pacs import free_port
from dicom_node.ledger import arrivals, presence
from dicom_node.ledger.database import Database
from tests.factories.mr import classic_series, write
from tests.factories.peers import DICOM_NODE, NODE_AE, SCANNER_AE, wait_until
from tests.factories.sentinels import CODINGS, sentinels_in, shown_of

if TYPE_CHECKING:
    from collections.abc import Iterator

TOKEN = "token-of-somebody-who-may-0001"
PEOPLE = {
    "ASCII": ("ISO_IR 6", "ZQXNAME^ZQXGIVEN"),
    "LATIN1": ("ISO_IR 100", "ZQXNAME-Ümläutßen^ZQXGIVEN"),
    "LATIN2": ("ISO_IR 101", "ZQXNAME-ŁĄŻÓŁĆ^ZQXGIVEN"),
    "CYRILLIC": ("ISO_IR 144", "ZQXNAME-Иванов^ZQXGIVEN"),
    "JAPANESE": (["", "ISO 2022 IR 87"], "ZQXNAME^ZQXGIVEN=山田^太郎=やまだ^たろう"),
    "KOREAN": (["", "ISO 2022 IR 149"], "ZQXNAME^ZQXGIVEN=김희중"),
    "CHINESE": ("GB18030", "ZQXNAME^ZQXGIVEN=山田^太郎"),
    "UTF8": ("ISO_IR 192", "ZQXNAME-Иванов^ZQXGIVEN=山田^太郎=やまだ"),
}


def an_image_series(person: str, **changes: Any) -> list[Dataset]:
    """Return a small series of one of the people, with everything that says who it is."""
    character_set, name = PEOPLE[person]
    number = list(PEOPLE).index(person) + 1
    attributes: dict[str, Any] = {
        "SpecificCharacterSet": character_set,
        "PatientName": name,
        "PatientID": f"ZQXID-{person}",
        "PatientBirthDate": "19370914",
        "PatientSex": "F",
        "PatientAddress": "ZQXSTREET 1",
        "PatientTelephoneNumbers": "ZQXPHONE",
        "PatientComments": "ZQXCOMMENT",
        "ReferringPhysicianName": "ZQXPHYSICIAN^A",
        "InstitutionName": "ZQXHOSPITAL",
        "StudyDescription": "ZQXSTUDY of 14.09.1937",
        "SeriesDescription": "ZQXSERIES t2 flair",
        "ProtocolName": "ZQXSERIES",
        "AccessionNumber": "ZQXACC",
        "StudyInstanceUID": f"2.25.987654321{number}0",
        "SeriesInstanceUID": f"2.25.987654321{number}1",
    }
    pixels = np.arange(3 * 64, dtype=np.uint16).reshape(3, 8, 8)
    found = classic_series(pixels, np.diag([1.0, 1.0, 3.0, 1.0]), **(attributes | changes))
    for z, ds in enumerate(found):
        ds.SOPInstanceUID = ds.file_meta.MediaStorageSOPInstanceUID = f"2.25.987654321{number}2{z}"
    return found


@dataclass
class Watched:
    """A node in its own process, of which every output is kept."""

    folder: Path
    port: int = field(default_factory=free_port)
    hl7_port: int = field(default_factory=free_port)
    web_port: int = field(default_factory=free_port)
    process: subprocess.Popen[bytes] | None = None
    titles: list[bytes] = field(default_factory=list)
    outputs: dict[str, bytes] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("cwd", "tmp", "disk"):
            (self.folder / name).mkdir()
        archive = {"ae_title": "AWAY", "host": "127.0.0.1", "port": free_port(), "timeout_s": 2}
        peer = {"ae_title": SCANNER_AE, "hosts": ["127.0.0.1"], "default_issuer": "HOSPITAL"}
        config = {
            "node": {"ae_title": NODE_AE, "port": self.port, "data_dir": "data"},
            "receive": {
                "peers": [peer],
                "min_free_disk_gb": 0,
                "quiet_period_s": 0,
                "hl7": {"port": self.hl7_port, "default_issuer": "HOSPITAL"},
            },
            "pacs": [
                {"name": "away", "dimse": archive, "default_issuer": "HOSPITAL", "priors": {"methods": ["c-get"]}}
            ],
            "tasks": ["glioma-recurrence"],
            "web": {"enabled": True, "port": self.web_port, "users": [{"name": "keeper", "token_env": "WEB_TOKEN"}]},
            "audit": {"file": {}},
            "logging": {"format": "json", "level": "debug"},
        }
        (self.folder / "node.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")

    @property
    def environment(self) -> dict[str, str]:
        """The environment of its processes: their temporary files lie in a folder of ours."""
        return os.environ | {"TMPDIR": str(self.folder / "tmp"), "WEB_TOKEN": TOKEN}

    def start(self) -> None:
        """Serve; return when it answers."""
        command = [*DICOM_NODE, "run", "--config", str(self.folder / "node.yaml"), "--role", "node"]
        with (self.folder / "node.jsonl").open("ab") as log:
            self.process = subprocess.Popen(
                command, stdout=log, stderr=log, cwd=self.folder / "cwd", env=self.environment, start_new_session=True
            )
        for port in (self.port, self.hl7_port, self.web_port):
            wait_until(f"port {port} to answer", lambda port=port: _answers(port), timeout_s=300)

    def look(self) -> None:
        """Keep what everybody on the machine may read of its processes."""
        self.titles += shown_of(self.pids())

    def pids(self) -> list[int]:
        """Return its processes."""
        assert self.process is not None
        found = []
        for path in Path("/proc").glob("[0-9]*/stat"):
            try:
                session = int(path.read_text().rpartition(")")[2].split()[3])
            except (OSError, ValueError):
                continue
            if session == self.process.pid:
                found.append(int(path.parent.name))
        return found

    def kill_reader(self) -> None:
        """Kill the process that reads files."""
        for pid in self.pids():
            if b"dicom_node.receive.reader" in Path(f"/proc/{pid}/cmdline").read_bytes():
                os.kill(pid, signal.SIGKILL)

    def send(self, datasets: list[Dataset], *, calling: str = SCANNER_AE, called: str = NODE_AE) -> list[int]:
        """Send images; return the statuses, none if it is not let in."""
        ae = AE(ae_title=calling)
        ae.add_requested_context(MRImageStorage)
        ae.add_requested_context(Verification)
        association = ae.associate("127.0.0.1", self.port, ae_title=called)
        if not association.is_established:
            return []
        statuses = [association.send_c_store(ds).Status for ds in datasets]
        association.release()
        return statuses

    def say(self, message: str) -> bytes:
        """Send an HL7 message; the answer goes back to the registry, which said it."""
        with socket.create_connection(("127.0.0.1", self.hl7_port), timeout=60) as connection:
            connection.sendall(b"\x0b" + message.encode() + b"\x1c\r")
            return connection.recv(65536)

    def get(self, method: str, path: str, body: str | None = None, **headers: str) -> None:
        """Ask the status page for something, as nobody, and keep the answer, its headers too."""
        connection = HTTPConnection("127.0.0.1", self.web_port, timeout=60)
        connection.request(method, path, body=body, headers=headers)
        response = connection.getresponse()
        self.outputs[f"{method} {path} {response.status}"] = str(response.getheaders()).encode() + response.read()
        connection.close()

    def verb(self, *arguments: str) -> subprocess.CompletedProcess[bytes]:
        """Run a verb of the command line and keep what it complains of."""
        command = [*DICOM_NODE, *arguments, "--config", str(self.folder / "node.yaml")]
        done = subprocess.run(command, capture_output=True, check=False, env=self.environment, cwd=self.folder / "cwd")
        self.outputs["stderr of " + " ".join(arguments)] = done.stderr
        return done

    def settled(self) -> bool:
        """Say whether everything that arrived was read."""
        database = Database(f"sqlite:///{self.folder / 'data' / 'ledger.sqlite'}")
        with database.read() as ledger:
            found = arrivals.counts_by_state(ledger)
        database.close()
        return found.get("received", 0) == 0 and sum(found.values()) > 0


def _answers(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex(("127.0.0.1", port)) == 0


def damaged(folder: Path) -> None:
    """Write what breaks readers, full of what must not be quoted: text in place of numbers, cut-off files, nests."""
    (good, *_) = an_image_series("ASCII", PatientID="ZQXID-DAMAGED")
    content = write([good], folder / "whole")[0].read_bytes()
    wrong = {
        "EchoTime": "ZQXSERIES",
        "Rows": "ZQXSERIES",
        "AcquisitionDate": "ZQXNAME",
        "ImagePositionPatient": "ZQXID\\ZQXACC\\19370914",
        "StudyInstanceUID": "2.25.987654321.ZQXID",
        "SpecificCharacterSet": "ZQXNAME",
        "PatientID": "",
    }
    for number, (keyword, text) in enumerate(wrong.items()):
        ds = dcmread(BytesIO(content))
        tag = tag_for_keyword(keyword)
        assert tag is not None
        ds[tag] = DataElement(tag, "UT", text)
        ds.SOPInstanceUID = ds.file_meta.MediaStorageSOPInstanceUID = f"2.25.98765432199{number}"
        ds.save_as(folder / f"{number}.dcm")
    (folder / "cut.dcm").write_bytes(content[: len(content) // 2])
    nest = b"\x08\x00\x40\x11SQ\0\0\xff\xff\xff\xff\xfe\xff\x00\xe0\xff\xff\xff\xff"
    (folder / "nested.dcm").write_bytes(content[:400] + nest * 30_000)
    (folder / "text.dcm").write_bytes(b"ZQXNAME^ZQXGIVEN " * 100)


HEADER = "MSH|^~\\&|ADT|HOSPITAL|NODE|RAD|20260301120000||"
MESSAGES = (
    f"{HEADER}ADT^A08^ADT_A01|M1|P|2.5|||||DE|UNICODE UTF-8\rPID|1||ZQXID-ASCII^^^HOSPITAL||ZQXNAME-山田||19370914|F\r",
    f"{HEADER}ADT^A40^ADT_A39|M2|P|2.5\rEVN|A40|20260301120000\rPID|1||ZQXID-ASCII^^^HOSPITAL||ZQXNAME\rMRG|ZQXID-UTF8\r",
    f"{HEADER}ADT^A40^ADT_A39|M3|P|2.5\rPID|1||ZQXID-ASCII||ZQXNAME||ZQXID\r",
    f"{HEADER}ADT^A08|ZQXNAME|P|9.9\rPID|ZQXNAME|19370914\r",
    "ZQXNAME^ZQXGIVEN",
)


def everything(node: Watched) -> None:
    """Let happen what can happen to a node that nobody watches."""
    for number, person in enumerate(PEOPLE):
        assert set(node.send(an_image_series(person))) == {0}
        if number == 3:
            node.kill_reader()
        node.look()
    contradiction = an_image_series("ASCII", PatientBirthDate="19370915", PatientID="ZQXID-OTHER")
    assert set(node.send(contradiction)) == {0}
    assert node.send([], calling="STRANGER") == node.send([], called="ANOTHER") == []
    damaged(node.folder / "disk")
    node.verb("ingest", str(node.folder / "disk"))
    for message in MESSAGES:
        node.say(message)
    node.look()
    wait_until("every file to be read", node.settled, timeout_s=240)
    node.look()


def ask_the_page(node: Watched) -> None:
    """Ask for what is there and what is not, as nobody and with a wrong token."""
    for path in (
        "/",
        "/metrics",
        "/health",
        "/health/ready",
        "/login",
        "/cases",
        "/deliveries",
        "/nowhere",
        "/patient/000000000000",
    ):
        node.get("GET", path)
        node.get("GET", path, Authorization="Bearer ZQX-no-token")
    node.get("POST", "/find", body="patient=nobody", **{"Content-Type": "application/x-www-form-urlencoded"})
    node.get("BREW", "/")
    node.get("GET", "/metrics", Authorization=f"Bearer {TOKEN}")


def use_the_command_line_wrongly(node: Watched) -> None:
    """What is said of an error stands on the terminal, in a journal, in a mail of cron."""
    for arguments in (
        ("timeline", "nobody"), ("explain", "1.2.3"), ("retry", "abc"), ("withdraw", "abc"), ("hold", "nobody"),
        ("patient", "show", "nobody"), ("patient", "merge", "nobody", "nobody else"), ("purge", "nobody", "--yes"),
    ):  # fmt: skip
        done = CliRunner().invoke(main, [*arguments, "--config", str(node.folder / "node.yaml")])
        assert done.exception is None or isinstance(done.exception, SystemExit), "a message, no traceback"
        node.outputs["said to " + " ".join(arguments)] = done.output.encode()


def leaks(node: Watched) -> dict[str, set[str]]:
    """Return which outputs name somebody."""
    data = node.folder / "data"
    texts = {
        "log": (node.folder / "node.jsonl").read_bytes(),
        "process titles": b"\0".join(node.titles),
        "names in the data folder": "\n".join(str(path.relative_to(data)) for path in data.rglob("*")).encode(),
        "work engine": b"".join(path.read_bytes() for path in data.glob("engine.sqlite*")),
        **node.outputs,
    }
    for outside in ("tmp", "cwd"):
        for path in (node.folder / outside).rglob("*"):
            texts[f"{outside}: {path.name}"] = str(path).encode() + (path.read_bytes() if path.is_file() else b"")
    return {name: found for name, text in texts.items() if (found := sentinels_in(text))}


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Watched]:
    """A running node."""
    found = Watched(tmp_path)
    try:
        found.start()
        yield found
    finally:
        if found.process is not None and found.process.poll() is None:
            os.killpg(found.process.pid, signal.SIGKILL)
            found.process.wait()


@pytest.mark.filterwarnings("ignore::UserWarning")  # of pydicom, at what is damaged on purpose
def test_no_output_of_a_node_names_anybody(node: Watched) -> None:
    """Whatever it was sent, whoever asked, whatever broke, and after it was killed and started again."""
    everything(node)
    ask_the_page(node)
    use_the_command_line_wrongly(node)
    os.killpg(node.process.pid, signal.SIGKILL)  # type: ignore[union-attr]
    node.process.wait()  # type: ignore[union-attr]
    node.start()
    node.look()
    time.sleep(3)  # some ticks: what they log is only looked at
    node.process.terminate()  # type: ignore[union-attr]
    assert node.process.wait(timeout=300) == 0  # type: ignore[union-attr]
    assert leaks(node) == {}
    database = Database(f"sqlite:///{node.folder / 'data' / 'ledger.sqlite'}")
    with database.read() as ledger:  # it did happen
        states = arrivals.counts_by_state(ledger)
        reasons = {str(each["reason"]) for each in presence.refusals(ledger)}
    database.close()
    assert states["indexed"] >= 3 * len(PEOPLE)
    assert states["conflict"] >= 3
    assert states["set-aside"] >= 4
    assert {"unknown-calling-ae-title", "unknown-called-ae-title", presence.FAILED_LOGIN} <= reasons
    log = (node.folder / "node.jsonl").read_text("utf-8")
    assert all(event in log for event in ("instance.set_aside", "association.refused", "message.answered", "login."))
    assert len(node.titles) > 10


def test_the_audit_trail_is_the_one_place_that_names_patients(node: Watched) -> None:
    """By ID, for that is its purpose; not by name, not with a date of birth or a description."""
    assert set(node.send(an_image_series("LATIN1"))) == {0}
    wait_until("the images to be read", node.settled, timeout_s=240)
    trail = node.folder / "data" / "audit" / "audit.log"
    wait_until("the trail to tell of it", lambda: b"ZQXID-LATIN1^^^HOSPITAL" in trail.read_bytes(), timeout_s=240)
    assert sentinels_in(trail.read_bytes()) == {"ZQXID", "2.25.987654321"}
    assert trail.stat().st_mode & 0o077 == 0


def test_the_search_finds_what_it_is_for() -> None:
    """So that its silence means something: every word, in the codings in which it was sent."""
    for person in PEOPLE:
        series = an_image_series(person)
        for coding in CODINGS:
            try:
                encoded = str(series[0].PatientName).encode(coding)
            except UnicodeEncodeError:
                continue
            assert "ZQXNAME" in sentinels_in(encoded)
    assert sentinels_in(json.dumps("山田").encode()) == {"山田"}
    assert sentinels_in(repr("ŁĄŻÓŁĆ".encode("iso8859_2")).encode()) in ({"ŁĄŻÓŁĆ"}, set())
    assert sentinels_in("x山田x".encode("iso2022_jp")) == {"山田"}
    assert sentinels_in(b"nobody") == set()

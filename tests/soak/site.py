"""A site: a node as its own processes, two archives that fail at times, and what lies on the disk."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from dicom_node.demo_pacs import free_port
from dicom_node.ledger.database import Database
from dicom_node.resources import task_file
from inference.bundle_files import shipped
from tests.factories.flair import ISSUER
from tests.factories.peers import NODE_AE, SCANNER_AE
from tests.soak.archive import REPORTS
from tests.soak.inject.kill_points import FOLDER_VARIABLE, PREDICTOR_VARIABLE, role_of
from tests.soak.inject.mutants import VARIABLE as MUTANT_VARIABLE
from tests.soak.power import record as recording

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.soak.patients import Patient

ROOT = Path(__file__).parents[2]
INJECT = Path(__file__).with_name("inject")
START_LIMIT_S = 600.0  # of a busy machine


class NotInTimeError(RuntimeError):
    """Something that had to come about did not."""


def wait_until(what: str, true: Callable[[], object], *, limit_s: float, every_s: float = 0.05) -> Any:
    """Return the first true value.

    Raises:
        NotInTimeError: if there is none in time.
    """
    end = time.monotonic() + limit_s
    while time.monotonic() < end:
        value = true()
        if value:
            return value
        time.sleep(every_s)
    msg = f"waited {limit_s:.0f} s for {what}"
    raise NotInTimeError(msg)


@dataclass
class Site:
    """Everything that runs, under one folder. A site in a folder that was used before takes up what is there."""

    folder: Path
    seed: int = 0
    failing: float = 0.2
    mutant: str | None = None
    real_model: bool = False
    quiet_period_s: float = 2
    role: str | None = None  # one process of this role alone; None: the supervisor with all of them
    with_archives: bool = True
    recorder: Path | None = None  # the shared object that writes down what the node's processes do to the data folder
    port: int = field(default_factory=free_port)
    process: subprocess.Popen[bytes] | None = None
    archives: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    @property
    def data(self) -> Path:
        """The node's data folder."""
        return self.folder / "data"

    @property
    def points(self) -> Path:
        """Where kill points are armed."""
        return self.folder / "points"

    @property
    def log(self) -> Path:
        """The log of the node's processes."""
        return self.folder / "node.jsonl"

    @property
    def record(self) -> Path:
        """What was written to the data folder, where it is recorded."""
        return self.folder / "record"

    def archive_folder(self, name: str) -> Path:
        """Where an archive keeps what it took."""
        return self.folder / f"archive-{name}"

    def prepare(self, patients: list[Patient]) -> None:
        """Write configuration and cohort, and start the archives."""
        shutil.rmtree(self.points / "armed", ignore_errors=True)  # left by a run that was ended
        (self.points / "armed").mkdir(parents=True)
        self.data.mkdir(exist_ok=True, mode=0o700)
        self._write_task()
        names = REPORTS if self.with_archives else ()
        entries = [self._archive(name, number) for number, name in enumerate(names)]
        config = {
            "node": {"ae_title": NODE_AE, "host": "127.0.0.1", "port": self.port, "data_dir": "data"},
            "receive": {
                "peers": [{"ae_title": SCANNER_AE, "hosts": ["127.0.0.1"], "default_issuer": ISSUER}],
                "quiet_period_s": self.quiet_period_s,
                "min_free_disk_gb": 0.1,
            },
            "tasks": ["task.yaml"],
            "inference": {"nice": 0},  # it is waited for
            "pacs": entries,
            "logging": {"format": "json"},
        }
        (self.folder / "node.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
        if self.role is not None:
            return  # it only receives: nobody's surgery is asked for
        rows = "\n".join(each.cohort_row for each in patients)
        cohort = self.folder / "cohort.csv"
        cohort.write_text(f"patient_id,issuer,diagnosis,surgeries\n{rows}\n", encoding="utf-8")
        self.verb("cohort", "import", str(cohort))

    def start(self) -> None:
        """Start the node; return when it listens."""
        with self.log.open("ab") as log:
            command = [sys.executable, "-m", "dicom_node", "run", "--config", str(self.folder / "node.yaml")]
            command += [] if self.role is None else ["--role", self.role]
            self.process = subprocess.Popen(
                command, stdout=log, stderr=log, cwd=ROOT, env=self._injected(), start_new_session=True
            )
        self.wait_until_listening()

    def wait_until_listening(self) -> None:
        """Wait for the port to answer, or for the node to be gone.

        Raises:
            NotInTimeError: if neither happens.
        """
        wait_until("the node to listen", lambda: answers(self.port) or not self.is_running, limit_s=START_LIMIT_S)

    @property
    def is_running(self) -> bool:
        """Whether the supervisor lives."""
        return self.process is not None and self.process.poll() is None

    def pids(self, role: str) -> list[int]:
        """Return the living processes of the node with this role."""
        assert self.process is not None
        return [pid for pid, found in processes(self.process.pid).items() if found == role]

    def kill_all(self) -> None:
        """Kill every process of the node at one moment."""
        assert self.process is not None
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.wait_until_gone()

    def wait_until_gone(self) -> None:
        """Wait until nothing of the node runs any more: its children stop when their supervisor is gone."""
        assert self.process is not None
        group = self.process.pid
        self.process.wait(60)
        wait_until("the node's processes to be gone", lambda: not processes(group), limit_s=120)
        self.process = None

    def stop(self) -> None:
        """End the node with SIGTERM, which drains."""
        if self.process is not None:
            self.process.terminate()
            self.process.wait(120)
            self.wait_until_gone()

    def close(self) -> None:
        """End whatever runs."""
        if self.process is not None:
            self.kill_all()
        for each in self.archives.values():
            each.terminate()
            each.wait(60)

    def database(self) -> Database:
        """Open the ledger."""
        return open_ledger(self.data)

    def verb(self, *arguments: str) -> str:
        """Run a verb of the command line and return what it prints."""
        command = [sys.executable, "-m", "dicom_node", *arguments, "--config", str(self.folder / "node.yaml")]
        environment = os.environ | self._recorded()
        done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT, env=environment)
        if done.returncode != 0:
            raise RuntimeError(done.stderr)
        return done.stdout

    def _write_task(self) -> None:
        """Let the task ask for saliency maps always, of a copy of the shipped bundle that nobody changes meanwhile."""
        bundle = self.folder / "bundle"
        if bundle.exists():
            return
        task = yaml.safe_load(task_file("glioma-recurrence").read_text(encoding="utf-8"))
        shutil.copytree(shipped(task["bundle"]["name"]), bundle)
        task["bundle"] = {"path": "./bundle", "digest": None}
        task["saliency"]["deliver"] = "always"
        (self.folder / "task.yaml").write_text(yaml.safe_dump(task), encoding="utf-8")

    def _archive(self, name: str, number: int) -> dict[str, Any]:
        """Start an archive and return its entry in the configuration."""
        port, title = free_port(), f"ARCHIVE{number}"
        options = {"folder": self.archive_folder(name), "port": port, "ae-title": title, "report": name}
        options |= {"failing": self.failing, "seed": self.seed + number}
        if self.recorder is not None:
            options["record"] = self.record
        command = [sys.executable, "-m", "tests.soak.archive", *(f"--{key}={value}" for key, value in options.items())]
        with (self.folder / f"archive-{name}.log").open("ab") as log:
            self.archives[name] = subprocess.Popen(command, stdout=log, stderr=log, cwd=ROOT)
        wait_until(f"the archive {name} to listen", lambda: answers(port), limit_s=START_LIMIT_S)
        dimse = {"ae_title": title, "host": "127.0.0.1", "port": port, "timeout_s": 5}
        return {"name": name, "dimse": dimse, "retry": {"first_s": 0.2, "longest_s": 2}}

    def _injected(self) -> dict[str, str]:
        """Return the environment of the node's processes: the real program, watched from outside."""
        found = os.environ | {"PYTHONPATH": f"{INJECT}:{ROOT}", FOLDER_VARIABLE: str(self.points)} | self._recorded()
        if not self.real_model:
            found[PREDICTOR_VARIABLE] = "1"
        if self.mutant is not None:
            found[MUTANT_VARIABLE] = self.mutant
        return found

    def _recorded(self) -> dict[str, str]:
        """Return what has a process of the node write down what it does to the data folder."""
        if self.recorder is None:
            return {}
        where = {recording.FOLDER_VARIABLE: str(self.data), recording.RECORD_VARIABLE: str(self.record)}
        return {"LD_PRELOAD": str(self.recorder), **where}


def open_ledger(data: Path) -> Database:
    """Open the ledger of a data folder."""
    return Database(f"sqlite:///{data / 'ledger.sqlite'}")


def answers(port: int) -> bool:
    """Say whether somebody listens on a port."""
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex(("127.0.0.1", port)) == 0


def processes(group: int) -> dict[int, str]:
    """Return the living processes of a process group, each with its role."""
    found = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            with contextlib.suppress(OSError, ValueError):
                state, _parent, its_group = folder.joinpath("stat").read_text().rpartition(")")[2].split()[:3]
                if int(its_group) == group and state != "Z":
                    arguments = folder.joinpath("cmdline").read_bytes().decode(errors="replace").split("\0")
                    found[int(folder.name)] = role_of(arguments)
    return found

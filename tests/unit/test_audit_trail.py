"""The audit trail on its way out: nothing lost or told twice when something is killed, bounded, and readable by few."""

from __future__ import annotations

import os
import stat
from datetime import timedelta
from io import StringIO
from typing import TYPE_CHECKING, Any

import pytest

from dicom_node import events
from dicom_node.errors import UpstreamError
from dicom_node.ledger import presence
from dicom_node.ledger.database import Database
from dicom_node.observe import health
from dicom_node.observe.audit import AuditTrail, open_trail
from dicom_node.observe.audit_spool import Entry, Spool
from dicom_node.observe.audit_syslog import FileSink
from dicom_node.observe.health import Verdict
from dicom_node.observe.logs import open_log
from dicom_node.settings import Logging
from tests.factories.audited import audited_settings, everything_happens, read_lines
from tests.factories.facts import PATIENT
from tests.factories.ledger import NOW

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


class Site:
    """A ledger with a trail into a file, a clock to turn, and a log."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.database = Database(f"sqlite:///{folder / 'ledger.sqlite'}")
        self.database.migrate()
        self.log = StringIO()
        self.now = NOW - timedelta(seconds=30)

    def trail(self, role: str = "node", **audit: Any) -> AuditTrail:
        """Begin a process with this trail."""
        self.settings = settings = audited_settings(self.folder, **({"file": {}} | audit))
        log = open_log(Logging(format="json"), b"key", self.log)
        found = open_trail(settings, self.database, log, role=role, clock=lambda: self.now)
        assert found is not None
        return found

    @property
    def verdicts(self) -> dict[str, Verdict]:
        """What the status page says of the trail."""
        vitals = health.examine(self.settings, self.database, self.now)
        return {each.what: each.verdict for each in vitals.checks if each.what.startswith("audit")}

    @property
    def told(self) -> list[str]:
        """The events of the file, in order."""
        return [f"{each.event} {each.type}".strip() for each in read_lines(self.folder / "audit" / "audit.log")]


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    """A node's ledger."""
    found = Site(tmp_path)
    yield found
    found.database.close()


def test_a_process_tells_its_life_and_what_happened(site: Site) -> None:
    """From start to stop, each line as RFC 5424 and PS3.15 A.6 say, each message as the schema says."""
    trail = site.trail()
    trail.start()
    trail.run_once()
    with site.database.write() as ledger:
        everything_happens(ledger)
    site.now = NOW + timedelta(minutes=5)
    trail.run_once()
    trail.stop()
    assert site.told[0] == "Application Activity Application Start"
    assert site.told[-1] == "Application Activity Application Stop"
    assert len(site.told) == 19
    assert trail.standing() == {"file": {"waiting": 0, "dropped": 0}}


def test_without_configuration_there_is_no_trail(site: Site) -> None:
    """And no folder for it."""
    settings = audited_settings(site.folder)
    log = open_log(Logging(format="json"), b"key", site.log)
    assert open_trail(settings, site.database, log, role="node", clock=lambda: NOW) is None


def test_only_the_node_may_read_what_names_patients(site: Site) -> None:
    """The folder, the file, those turned over, and what waits; whatever umask the process has, or mode the file had."""
    (site.folder / "audit").mkdir(mode=0o700)
    (site.folder / "audit" / "audit.log").touch(mode=0o644)
    before = os.umask(0)
    try:
        trail = site.trail(file={"max_mb": 0.001, "keep": 2})
        trail.start()
        trail.run_once()
        with site.database.write() as ledger:
            everything_happens(ledger)
        for minutes in range(5, 35, 5):
            site.now = NOW + timedelta(minutes=minutes)
            trail.stop()
    finally:
        os.umask(before)
    folder = site.folder / "audit"
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    files = {path.name: stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()}
    assert set(files.values()) == {0o600}
    assert {"audit.log.1", "audit.log.2", "waiting.sqlite"} <= set(files)
    assert "audit.log.3" not in files
    assert not any(word in site.log.getvalue() for word in (PATIENT.patient_id, PATIENT.name))


def test_a_link_in_place_of_the_file_is_not_followed(site: Site) -> None:
    """Nothing is written through it, the message waits, and the admin is told."""
    (site.folder / "audit").mkdir(mode=0o700)
    victim = site.folder / "victim"
    victim.write_text("mine")
    (site.folder / "audit" / "audit.log").symlink_to(victim)
    trail = site.trail()
    trail.start()
    trail.run_once()
    assert victim.read_text() == "mine"
    assert trail.standing()["file"]["waiting"] == 1
    assert events.AUDIT_DELAYED in site.log.getvalue()


class Killed(BaseException):
    """What a process that is killed here does not live to see."""


def test_a_kill_between_writing_and_forgetting_tells_again_and_loses_nothing(site: Site) -> None:
    """A message may stand there twice, never not at all."""
    trail = site.trail()
    trail.start()
    send = FileSink.send

    def killed(sink: FileSink, lines: Any) -> None:
        send(sink, lines)
        raise Killed

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(FileSink, "send", killed)
        with pytest.raises(Killed):
            trail.run_once()
    site.trail().run_once()
    assert site.told == ["Application Activity Application Start"] * 2


def test_a_kill_while_looking_neither_loses_nor_repeats(site: Site) -> None:
    """Messages and positions commit together."""
    trail = site.trail()
    trail.start()
    trail.run_once()
    with site.database.write() as ledger:
        presence.refused(ledger, calling_ae_title="X", address="192.0.2.1", reason="no", now=NOW)
    add = Spool.add

    def killed(spool: Spool, *arguments: Any, **named: Any) -> int:
        found = add(spool, *arguments, **named)
        assert found == 0
        raise Killed

    for where in ("before", "after"):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Spool, "add", killed if where == "after" else _raise)
            with pytest.raises(Killed):
                trail.run_once()
    site.trail().run_once()
    assert site.told == ["Application Activity Application Start", "Security Alert Node Authentication"]


def _raise(*_: Any, **__: Any) -> int:
    raise Killed


def test_what_waits_is_bounded_and_what_was_dropped_is_told(site: Site, tmp_path: Path) -> None:
    """The oldest go; the log says so at once, the trail itself when it speaks again."""
    gone = site.folder / "no" / "such"
    gone.parent.write_text("a file where a folder should be")
    trail = site.trail(file={"path": gone}, most_waiting=100)
    trail.start()
    trail.run_once()
    for number in range(120):
        with site.database.write() as ledger:
            presence.refused(ledger, calling_ae_title=f"X{number}", address="192.0.2.1", reason="no", now=NOW)
    trail.run_once()
    assert trail.standing() == {"file": {"waiting": 100, "dropped": 21}}
    assert site.verdicts == {"audit file": Verdict.BAD}
    assert events.AUDIT_DROPPED in site.log.getvalue()
    gone.parent.unlink()
    trail = site.trail(file={"path": gone}, most_waiting=100)
    trail.run_once()
    told = read_lines(gone)
    assert [each.type for each in told[:2]] == ["Audit Recording Stopped", "Node Authentication"]
    assert told[0].text == "21 audit messages were dropped: too many waited to be sent"
    assert told[1].requestor == ["X20"]
    assert len(told) == 101
    assert trail.standing() == {"file": {"waiting": 0, "dropped": 0}}
    assert site.verdicts == {"audit file": Verdict.GOOD}


def test_one_way_out_that_fails_does_not_hold_the_other(site: Site) -> None:
    """A repository that is away costs nothing but what waits for it; it is tried again ever more rarely."""
    trail = site.trail(syslog={"host": "127.0.0.1", "port": 9, "timeout_s": 1})
    trail.start()
    for _ in range(5):
        trail.run_once()
    assert site.told == ["Application Activity Application Start"]
    assert trail.standing() == {"syslog": {"waiting": 1, "dropped": 0}, "file": {"waiting": 0, "dropped": 0}}
    assert site.log.getvalue().count(events.AUDIT_DELAYED) == 1
    assert "127.0.0.1:9" in site.log.getvalue()


def test_a_node_starts_and_stops_although_its_trail_cannot_be_written(site: Site) -> None:
    """It says so in the log, and serves."""
    (site.folder / "audit").write_text("a file where a folder should be")
    trail = site.trail()
    trail.start()
    trail.stop()
    assert site.log.getvalue().count(events.AUDIT_DELAYED) == 2


def test_of_two_processes_on_one_folder_one_sends_at_a_time(site: Site) -> None:
    """Both may tell; what one is sending the other leaves."""
    first, second = site.trail(), site.trail("deliver")
    first.start()
    second.start()
    busy: list[int] = []
    send = FileSink.send

    def slow(sink: FileSink, lines: Any) -> None:
        if not busy:
            busy.append(1)
            second.run_once()
        send(sink, lines)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(FileSink, "send", slow)
        first.run_once()
    assert site.told == ["Application Activity Application Start"] * 2


def test_a_fact_is_taken_in_once(tmp_path: Path) -> None:
    """By its name, across processes and restarts; a message without one always."""
    spool = Spool(tmp_path / "audit" / "waiting.sqlite", ["a", "b"], 100)
    spool.prepare()
    for _ in range(2):
        spool.add([Entry(key="x", line=b"x"), Entry(key="", line=b"y")], positions={"p": 1}, now_s=0)
    assert [each.line for each in spool.next("a", 10)] == [b"x", b"y", b"y"]
    assert spool.counts("b") == (3, 0)
    assert spool.positions() == {"p": 1}


def test_an_upstream_error_keeps_every_message(site: Site) -> None:
    """A batch leaves whole, or stays whole."""
    trail = site.trail()
    trail.start()

    def refuse(*_: object) -> None:
        msg = "away"
        raise UpstreamError(msg)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(FileSink, "send", refuse)
        trail.run_once()
    assert trail.standing()["file"]["waiting"] == 1

"""When archives are asked, and how gently they are asked for series."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from dicom_node.ledger import identity_changes, patients, prior_series, priors
from dicom_node.ledger.database import Database
from dicom_node.ledger.identity_changes import By
from dicom_node.ledger.prior_series import Verdict
from dicom_node.ledger.priors import Answer, PriorStudy
from dicom_node.ledger.tables import PriorState, study
from dicom_node.priors import search
from dicom_node.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from sqlalchemy import Connection

    from dicom_node.timeline.decision import PriorsState

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
LONG_AGO = NOW - timedelta(days=1)


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Connection]:
    """One write transaction on a fresh ledger."""
    database = Database(f"sqlite:///{tmp_path / 'ledger.sqlite'}")
    database.migrate()
    with database.write() as connection:
        yield connection
    database.close()


def settings(folder: Path, *issuers: str, **rules: Any) -> Settings:
    """Return a node with one archive per issuer."""
    archives = [
        {
            "name": f"archive-{number}",
            "orthanc": {"url": "http://127.0.0.1:1"},
            "default_issuer": issuer,
            "priors": {"methods": ["orthanc"], **rules},
        }
        for number, issuer in enumerate(issuers or ("HOSPITAL",))
    ]
    node = {"ae_title": "NODE", "data_dir": folder}
    receive = {"allow_unknown_peers": True, "quiet_period_s": 60}
    return Settings.model_validate({"node": node, "receive": receive, "pacs": archives, "tasks": ["glioma-recurrence"]})


class Desk:
    """Asks about one patient."""

    def __init__(self, ledger: Connection, found: Settings, *ids: tuple[str, str]) -> None:
        self.ledger = ledger
        self.settings = found
        (self.row, *_) = [patients.patient_row(ledger, *each) for each in ids or (("HOSPITAL", "SENTINEL-1"),)]
        self.studies: list[str] = []
        self.now = NOW

    def hold(self, uid: str, *, since: datetime = LONG_AGO) -> None:
        """Hold a study whose newest instance came at some time."""
        self.ledger.execute(
            study.insert().values(
                study_instance_uid=uid, patient=self.row, burst_started_at=since, last_received_at=since, stat=False
            )
        )
        self.studies.append(uid)

    def ensure(self, *, waiting: bool = False) -> list[str]:
        """Open what is due, and return the questions that are."""
        found = {"settings": self.settings, "held_studies": self.studies}
        search.ensure(self.ledger, self.row, **found, waiting=waiting, now=self.now)
        return self.due(search.LOOKUP)

    def look(self) -> PriorsState:
        """Say how far the search is."""
        found = {"settings": self.settings, "held_studies": self.studies}
        return search.look(self.ledger, self.row, **found, now=self.now)

    def due(self, kind: str = search.FETCH) -> list[str]:
        """Return the keys of what is due."""
        return [key for each, key in search.due(self.ledger, settings=self.settings, now=self.now) if each == kind]

    def answer(self, *days: date, held: tuple[str, ...] = (), instances: int | None = 10) -> None:
        """Answer the open question with a wanted study of two series per day, beside the held ones."""
        lookup = priors.latest_lookup(self.ledger, self.row, "archive-0")
        assert lookup is not None
        studies = [PriorStudy(study_instance_uid=f"1.9.{day:%Y%m%d}", day=day, state=PriorState.WANTED) for day in days]
        series = {
            each.study_instance_uid: [
                Verdict(
                    study_instance_uid=each.study_instance_uid,
                    series_instance_uid=f"{each.study_instance_uid}.{number}",
                    state=PriorState.WANTED,
                    instances=instances,
                )
                for number in (1, 2)
            ]
            for each in studies
        }
        studies += [PriorStudy(study_instance_uid=uid, day=None, state=PriorState.HELD) for uid in held]
        priors.answer_lookup(self.ledger, lookup, Answer(studies=studies, series=series), self.now)

    def end(self, key: str, state: PriorState = PriorState.FETCHED, *, fetched: int = 10) -> None:
        """End the fetching of a series."""
        found = prior_series.get(self.ledger, *key.split("/")[1:3])
        assert found is not None
        prior_series.begin(self.ledger, found, self.now)
        prior_series.end(self.ledger, found, state, fetched=fetched, reason="", method="orthanc", now=self.now)
        priors.settle_study(self.ledger, found.pacs, found.study_instance_uid)

    def end_all(self) -> None:
        """End the fetching of every series that is due, one after the other."""
        while keys := self.due():
            for key in keys:
                self.end(key)


def test_nothing_is_asked_before_a_study_is_quiet(ledger: Connection, tmp_path: Path) -> None:
    """What still arrives would be counted too early, and fetched beside its sending."""
    desk = Desk(ledger, settings(tmp_path))
    desk.hold("1.2.1", since=NOW - timedelta(seconds=59))
    assert desk.ensure() == []
    assert not desk.look().open
    desk.now += timedelta(seconds=1)
    assert desk.look().open
    assert desk.look().text == "prior lookup: about to be asked"
    assert desk.ensure() == ["lookup/1/1"]
    assert desk.ensure() == ["lookup/1/1"]  # open already


def test_what_was_fetched_opens_no_new_question_and_what_was_sent_does(ledger: Connection, tmp_path: Path) -> None:
    """The search ends: only a study that the archive was not told of starts it again."""
    desk = Desk(ledger, settings(tmp_path))
    desk.hold("1.2.1")
    desk.ensure()
    desk.answer(date(2025, 6, 1), held=("1.2.1",))
    desk.end_all()
    desk.hold("1.9.20250601")
    assert desk.ensure() == []
    assert desk.look().text == "prior lookup at 2026-03-01 12:00: found 2, held 1, fetched 1"
    desk.hold("1.2.2")
    assert desk.look().open
    assert desk.ensure() == ["lookup/2/1"]


def test_a_waiting_case_has_the_question_asked_again_after_the_interval(ledger: Connection, tmp_path: Path) -> None:
    """Not sooner, and not if nobody waits."""
    desk = Desk(ledger, settings(tmp_path, ask_again_after_s=3600))
    desk.hold("1.2.1")
    desk.ensure()
    desk.answer()
    assert desk.look().next_look_at == NOW + timedelta(hours=1)
    desk.now += timedelta(minutes=59)
    assert desk.ensure(waiting=True) == []
    desk.now += timedelta(minutes=1)
    assert desk.ensure() == []
    assert desk.ensure(waiting=True) == ["lookup/2/1"]


def test_only_archives_that_know_one_of_the_patients_ids_are_asked(ledger: Connection, tmp_path: Path) -> None:
    """The same PatientID of another issuer is somebody else; a merged ID opens its issuer's archive."""
    desk = Desk(ledger, settings(tmp_path, "HOSPITAL", "CLINIC", "ELSEWHERE"), ("HOSPITAL", "SENTINEL-1"))
    desk.hold("1.2.1")
    assert desk.ensure() == ["lookup/1/1"]
    patients.patient_row(ledger, "CLINIC", "SENTINEL-7")
    by = By(at=NOW, actor="test")
    identity_changes.merge(ledger, ("CLINIC", "SENTINEL-7"), ("HOSPITAL", "SENTINEL-1"), by)
    assert desk.ensure() == ["lookup/1/1", "lookup/2/1"]
    (_, clinic, _) = desk.settings.pacs
    assert search.ids_to_ask(ledger, desk.row, clinic) == ["SENTINEL-7"]


def test_the_newest_study_is_fetched_first_and_no_more_at_a_time_than_allowed(
    ledger: Connection, tmp_path: Path
) -> None:
    """What is in flight stays in the list, so that a lost job is found again, and keeps its place."""
    desk = Desk(ledger, settings(tmp_path, max_concurrent=2))
    desk.hold("1.2.1")
    desk.ensure()
    desk.answer(date(2025, 3, 1), date(2025, 9, 1), date(2025, 6, 1))
    first = desk.due()
    assert first == ["fetch/archive-0/1.9.20250901.1/1", "fetch/archive-0/1.9.20250901.2/1"]
    begun = prior_series.get(ledger, "archive-0", "1.9.20250901.2")
    assert begun is not None
    prior_series.begin(ledger, begun, desk.now)
    desk.end(first[0])
    assert desk.due() == ["fetch/archive-0/1.9.20250901.2/1", "fetch/archive-0/1.9.20250601.1/1"]


def test_no_more_series_are_fetched_within_an_hour_than_allowed(ledger: Connection, tmp_path: Path) -> None:
    """Three now, the next when the first is an hour old."""
    desk = Desk(ledger, settings(tmp_path, max_concurrent=4, per_hour=3))
    desk.hold("1.2.1")
    desk.ensure()
    desk.answer(date(2025, 3, 1), date(2025, 6, 1))
    assert len(desk.due()) == 3
    for key in desk.due():
        desk.end(key)
    assert desk.due() == []
    desk.now += timedelta(minutes=60)
    assert len(desk.due()) == 1


def test_series_are_fetched_in_the_window_only_and_the_line_says_so(ledger: Connection, tmp_path: Path) -> None:
    """Questions are asked at any time; images come at night."""
    desk = Desk(ledger, settings(tmp_path, window={"start": "19:00", "end": "06:00"}))
    desk.hold("1.2.1")
    assert desk.ensure() == ["lookup/1/1"]
    desk.answer(date(2025, 3, 1))
    assert desk.due() == []
    assert desk.look().open
    assert desk.look().text.endswith("found 1, to fetch 1, fetched from 19:00 on")
    desk.now += timedelta(hours=7)
    assert len(desk.due()) == 1


def test_a_series_fetched_whole_is_not_wanted_again_though_nothing_of_it_was_an_input(
    ledger: Connection, tmp_path: Path
) -> None:
    """Asked again, the archive tells the same; it is fetched only if it has grown."""
    desk = Desk(ledger, settings(tmp_path))
    desk.hold("1.2.1")
    desk.ensure()
    desk.answer(date(2025, 6, 1))
    desk.end_all()
    desk.answer(date(2025, 6, 1))
    assert desk.due() == []
    desk.answer(date(2025, 6, 1), instances=11)
    assert desk.due() == ["fetch/archive-0/1.9.20250601.1/1"]


def test_a_series_refused_after_it_came_stays_refused(ledger: Connection, tmp_path: Path) -> None:
    """Another patient's images are not asked for twice."""
    desk = Desk(ledger, settings(tmp_path, max_concurrent=2))
    desk.hold("1.2.1")
    desk.ensure()
    desk.answer(date(2025, 6, 1))
    for key in desk.due():
        desk.end(key, PriorState.REFUSED)
    desk.answer(date(2025, 6, 1))
    assert desk.due() == []


def test_a_failed_series_is_tried_anew_at_the_next_question(ledger: Connection, tmp_path: Path) -> None:
    """With a fresh count of attempts."""
    desk = Desk(ledger, settings(tmp_path, max_concurrent=2))
    desk.hold("1.2.1")
    desk.ensure()
    desk.answer(date(2025, 6, 1))
    for key in desk.due():
        desk.end(key, PriorState.FAILED)
    assert (desk.look().open, desk.look().failed) == (False, True)
    desk.answer(date(2025, 6, 1))
    assert desk.due() == ["fetch/archive-0/1.9.20250601.1/1", "fetch/archive-0/1.9.20250601.2/1"]
    assert not desk.look().failed


def test_images_that_are_gone_are_wanted_again_and_never_without_a_pause(ledger: Connection, tmp_path: Path) -> None:
    """Only an archive that told of the series can bring it back."""
    desk = Desk(ledger, settings(tmp_path, max_concurrent=2))
    desk.hold("1.2.1")
    desk.ensure()
    desk.answer(date(2025, 6, 1))
    for key in desk.due():
        desk.end(key)
    assert prior_series.want_again(ledger, desk.row, "1.9.20250601.1", desk.now)
    assert desk.due() == []
    desk.now += timedelta(hours=1)
    assert prior_series.want_again(ledger, desk.row, "1.9.20250601.1", desk.now)
    assert desk.due() == ["fetch/archive-0/1.9.20250601.1/1"]
    assert not prior_series.want_again(ledger, desk.row, "1.2.1.1", desk.now)


def test_the_largest_count_any_archive_tells_is_expected(ledger: Connection, tmp_path: Path) -> None:
    """An archive that does not say, says nothing."""
    desk = Desk(ledger, settings(tmp_path, "HOSPITAL", "HOSPITAL"))
    desk.hold("1.2.1")
    desk.ensure()
    desk.answer(date(2025, 6, 1), instances=24)
    other = priors.latest_lookup(ledger, desk.row, "archive-1")
    assert other is not None
    for uid, count in (("1.9.20250601.1", 30), ("1.9.20250601.2", None)):
        verdict = Verdict(
            study_instance_uid="1.9.20250601", series_instance_uid=uid, state=PriorState.WANTED, instances=count
        )
        prior_series.put(ledger, other, verdict, NOW)
    assert priors.instance_counts(ledger, desk.row) == {"1.9.20250601.1": 30, "1.9.20250601.2": 24}

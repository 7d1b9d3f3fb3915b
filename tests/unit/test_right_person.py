"""Never to the wrong person: an archive is asked whose study it is before anything is encoded and before it is sent."""

from __future__ import annotations

import io
import shutil
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
from pydicom import dcmread
from pydicom.uid import (
    Comprehensive3DSRStorage,
    MultiFrameTrueColorSecondaryCaptureImageStorage,
    SecondaryCaptureImageStorage,
)
from pynetdicom import AE, evt
from sqlalchemy import delete, insert, update

from dicom_node.deliver.postman import Postman
from dicom_node.demo_pacs import free_port
from dicom_node.errors import UpstreamError
from dicom_node.ledger import cases, deliveries, patients, runs, tables
from dicom_node.ledger.encodings import Demographics
from dicom_node.ledger.tables import CaseState, DeliveryState
from dicom_node.observe.logs import open_log
from dicom_node.priors.archive import Archive, CannotBeAsked, FoundSeries, FoundStudy
from dicom_node.settings import Logging
from dicom_node.timeline.model import PatientFacts, RunState
from dicom_node.work.demographics import AnotherPatientError, Answer, as_told, correct, differing, of_header
from dicom_node.work.engine import ROUTINE, JobKind, JobStatus
from tests.factories.bench import NOW, Bench
from tests.factories.flair import ISSUER

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

    from pydicom import Dataset

    from dicom_node.settings import Pacs

LATER = NOW + timedelta(minutes=5)
OBJECTS = (SecondaryCaptureImageStorage, MultiFrameTrueColorSecondaryCaptureImageStorage, Comprehensive3DSRStorage)
CORRECTED = "山田^太郎"


@dataclass
class Told:
    """An archive's answers, as scripted: what it says of any study, or the error it raises."""

    says: PatientFacts | Exception | None
    accession_number: str = ""
    asked: list[str] = field(default_factory=list)

    def find_study(self, study_instance_uid: str) -> FoundStudy | None:
        """Answer as told."""
        self.asked.append(study_instance_uid)
        if isinstance(self.says, Exception):
            raise self.says
        if self.says is None:
            return None
        return FoundStudy(
            study_instance_uid=study_instance_uid, patient=self.says, accession_number=self.accession_number
        )

    def find_studies(self, patient_id: str) -> list[FoundStudy]:
        """Nobody asks here."""
        raise NotImplementedError

    def find_series(self, patient_id: str, study_instance_uid: str) -> list[FoundSeries]:
        """Nobody asks here."""
        raise NotImplementedError


class Store:
    """A real storage SCP that keeps what it is sent; its port is closed until `open`."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.port = free_port()
        self.received: list[Dataset] = []
        self.statuses: list[int] = []  # of the next answers; success when there are none left
        self._ae = AE(ae_title=name.upper())
        for sop_class_uid in OBJECTS:
            self._ae.add_supported_context(sop_class_uid)

    def open(self) -> None:
        """Serve."""
        self._ae.start_server(("127.0.0.1", self.port), block=False, evt_handlers=[(evt.EVT_C_STORE, self._store)])

    def close(self) -> None:
        """Serve no more."""
        self._ae.shutdown()

    def _store(self, event: evt.Event) -> int:
        self.received.append(event.dataset)
        return self.statuses.pop(0) if self.statuses else 0x0000

    @property
    def configuration(self) -> dict[str, Any]:
        """Its entry in the configuration."""
        dimse = {"ae_title": self.name.upper(), "host": "127.0.0.1", "port": self.port, "timeout_s": 5}
        return {"name": self.name, "dimse": dimse, "retry": {"first_s": 1, "longest_s": 1}}


class Work:
    """An engine without a process: every job is done when it is asked for; `forget` is the death of all processes."""

    def __init__(self) -> None:
        self.do: Callable[[JobKind, str], None] = lambda _kind, _key: None
        self.done: dict[str, JobStatus] = {}

    def submit(self, kind: JobKind, key: str, *, priority: int = ROUTINE) -> None:
        """Do it now; an error ends the job as failed."""
        try:
            self.do(kind, key)
        except Exception:  # noqa: BLE001 - the engine's edge
            self.done[key] = JobStatus.FAILED
        else:
            self.done[key] = JobStatus.DONE

    def status(self, keys: Iterable[str]) -> dict[str, JobStatus]:
        """Return what is known."""
        return {key: self.done.get(key, JobStatus.UNKNOWN) for key in keys}

    def rescue(self, executor_id: str) -> list[str]:
        """Nobody dies in silence here."""
        return []

    def retry(self, key: str) -> None:
        """Do it again."""
        self.submit(JobKind.DELIVER if "/" in key else JobKind.RUN, key)

    def forget(self) -> None:
        """Know of no job any more."""
        self.done.clear()


class Site:
    """A node whose patient is due, and its archives: real stores with scripted answers."""

    def __init__(self, received: Path, folder: Path, studies: list[Path], *stores: Store) -> None:
        shutil.copytree(received, folder)
        self.stores = {store.name: store for store in stores}
        self.ours = of_header(dcmread(studies[-1]), default_issuer=ISSUER)
        self.told = {store.name: Told(self.person()) for store in stores}
        self.work = Work()
        entries = [store.configuration for store in stores]
        self.bench = Bench(folder, self.work, pacs=entries, archive_for=self.archive_for)
        self.log = io.StringIO()
        log = open_log(Logging(level="info", format="json"), b"key", self.log)
        self.bench.steps = replace(self.bench.steps, log=log)
        self.postman = Postman(
            self.bench.settings,
            self.bench.database,
            self.bench.folders.outbox,
            log,
            clock=lambda: self.bench.now,
            archive_for=self.archive_for,
        )
        self.work.do = self._do
        self.bench.now = LATER

    def archive_for(self, pacs: Pacs) -> Archive:
        """Return the scripted answers of an archive."""
        return self.told[pacs.name]

    def person(self, **changes: str) -> PatientFacts:
        """Return the patient as we know them, or as somebody corrected them."""
        ours = self.ours
        same = PatientFacts(
            issuer=ours.issuer, patient_id=ours.patient_id, name=ours.name, birth_date=ours.birth_date, sex=ours.sex
        )
        return replace(same, **changes)  # type: ignore[arg-type] # texts only

    def _do(self, kind: JobKind, key: str) -> None:
        if kind is JobKind.DELIVER:
            self.postman.deliver(key)
            return
        self.bench.steps.infer(key)
        self.bench.steps.encode(key)

    def ticks(self, count: int = 4, every: timedelta = timedelta(seconds=5)) -> None:
        """Let time pass."""
        for _ in range(count):
            self.bench.tick()
            self.bench.now += every

    @property
    def run(self) -> runs.Run:
        """The only run."""
        with self.bench.database.read() as ledger:
            (found,) = runs.of_patient(ledger, 1)
        return found

    @property
    def case(self) -> cases.Case:
        """The only case."""
        with self.bench.database.read() as ledger:
            (found,) = cases.of_patient(ledger, 1)
        return found

    @property
    def deliveries(self) -> dict[str, tuple[DeliveryState, int]]:
        """Where each delivery stands, and the number of its encoding."""
        with self.bench.database.read() as ledger:
            found = deliveries.of_run(ledger, self.run.run_key)
        return {each.destination: (each.state, each.encoding) for each in found}

    def encoded(self, encoding: int) -> dict[str, bytes]:
        """Return the bytes of an encoding by SOP Instance UID, as an archive gets them that takes every class."""
        with self.bench.database.read() as ledger:
            made = runs.objects_of(ledger, self.run.run_key, encoding)
        objects = [each for each in made if each.kind not in {"report-compr", "report-enhanced"}]
        return {each.sop_instance_uid: (self.bench.folders.outbox / each.path).read_bytes() for each in objects}


@pytest.fixture(scope="module")
def received(tmp_path_factory: pytest.TempPathFactory, studies: list[Path]) -> Path:
    """The data folder of a node that has received them."""
    folder = tmp_path_factory.mktemp("received")
    bench = Bench(folder, Work())
    for path in studies:
        bench.receive(path)
    bench.database.close()
    return folder


@pytest.fixture
def store() -> Iterator[Store]:
    """An archive whose port is closed."""
    found = Store("main")
    yield found
    found.close()


@pytest.fixture
def second() -> Iterator[Store]:
    """Another one."""
    found = Store("second")
    yield found
    found.close()


@pytest.fixture(scope="module")
def encoded(tmp_path_factory: pytest.TempPathFactory, received: Path, studies: list[Path]) -> Path:
    """The data folder of a node whose report two archives could not take yet."""
    folder = tmp_path_factory.mktemp("encoded") / "node"
    found = Site(received, folder, studies, Store("main"), Store("second"))
    found.ticks(1)
    assert found.deliveries == dict.fromkeys(("main", "second"), (DeliveryState.RETRYING, 1))
    found.bench.database.close()
    return folder


@pytest.fixture
def site(tmp_path: Path, received: Path, studies: list[Path], store: Store) -> Iterator[Site]:
    """A node with one archive."""
    found = Site(received, tmp_path / "node", studies, store)
    yield found
    found.bench.database.close()


@pytest.fixture
def late(tmp_path: Path, encoded: Path, studies: list[Path], store: Store) -> Iterator[Site]:
    """A node whose report waits for its only archive."""
    found = Site(encoded, tmp_path / "node", studies, store)
    with found.bench.database.write() as ledger:
        ledger.execute(delete(tables.delivery).where(tables.delivery.c.destination == "second"))
    found.bench.now += timedelta(minutes=2)
    yield found
    found.bench.database.close()


@pytest.fixture
def two(tmp_path: Path, encoded: Path, studies: list[Path], store: Store, second: Store) -> Iterator[Site]:
    """A node whose report waits for two archives."""
    found = Site(encoded, tmp_path / "node", studies, store, second)
    found.bench.now += timedelta(minutes=2)
    yield found
    found.bench.database.close()


def names(found: Iterable[Dataset]) -> set[str]:
    """Return the patient's names in what an archive received."""
    return {str(ds.PatientName) for ds in found}


def uids(found: Iterable[Dataset]) -> set[str]:
    """Return the SOP Instance UIDs of what an archive received."""
    return {str(ds.SOPInstanceUID) for ds in found}


def test_an_archive_that_agrees_is_asked_once_and_changes_nothing(
    site: Site, store: Store, studies: list[Path]
) -> None:
    """Asked just before the report was encoded, it is not asked again for the first delivery."""
    store.open()
    site.ticks()
    assert site.deliveries == {"main": (DeliveryState.SENT, 1)}
    assert site.told["main"].asked == [str(dcmread(studies[-1]).StudyInstanceUID)]
    assert names(store.received) == {site.ours.name}
    kept = site.run.encodings[1]
    assert (kept.demographics, kept.asked) == (site.ours, {"main": "answered"})
    assert site.case.state is CaseState.REPORTED


def test_a_report_takes_what_the_archive_corrected(site: Site, store: Store) -> None:
    """Name in any script, birth date, sex and accession number: the report joins the study as it stands there."""
    site.told["main"].says = site.person(name=CORRECTED, birth_date="20150102", sex="F")
    site.told["main"].accession_number = "A-17"
    store.open()
    site.ticks()
    assert len(store.received) == 3
    for ds in store.received:
        assert ds.SpecificCharacterSet == "ISO_IR 192"
        assert (str(ds.PatientName), ds.PatientBirthDate, ds.PatientSex) == (CORRECTED, "20150102", "F")
        assert (ds.AccessionNumber, ds.PatientID) == ("A-17", site.ours.patient_id)
    assert site.run.encodings[1].demographics.name == CORRECTED


@pytest.mark.parametrize(
    ("changes", "keyword"),
    [({"patient_id": "STRANGER-7"}, "another PatientID"), ({"issuer": "ELSEWHERE"}, "another IssuerOfPatientID")],
)
def test_nothing_is_encoded_for_a_study_that_is_somebody_elses(
    site: Site, store: Store, changes: dict[str, str], keyword: str
) -> None:
    """The run fails and says which field, never which value; `retry` asks again once it is mended."""
    site.told["main"].says = site.person(**changes)
    store.open()
    site.ticks()
    assert site.run.state is RunState.FAILED
    assert keyword in (site.run.error or "")
    assert site.case.state is CaseState.FAILED
    assert keyword in site.case.reasons[0].text
    assert store.received == []
    for value in changes.values():
        assert value not in site.case.reasons[0].text + (site.run.error or "") + site.log.getvalue()
    site.told["main"].says = site.person()
    with site.bench.database.write() as ledger:
        runs.set_state(ledger, site.run.run_key, RunState.QUEUED)
        patients.touch(ledger, 1)
    site.ticks()
    assert site.deliveries == {"main": (DeliveryState.SENT, 1)}


def test_an_id_that_is_known_to_be_the_same_humans_is_taken_over(site: Site, store: Store) -> None:
    """After a merge the report stands under the ID that the archive files the study under."""
    with site.bench.database.write() as ledger:
        since = {"since": NOW, "source": "test"}
        ledger.execute(insert(tables.patient_alias).values(issuer=ISSUER, patient_id="OLD-1", patient=1, **since))
        patients.patient_row(ledger, ISSUER, "OLD-1")
    site.told["main"].says = site.person(patient_id="OLD-1")
    store.open()
    site.ticks()
    assert {(ds.PatientID, ds.IssuerOfPatientID) for ds in store.received} == {("OLD-1", ISSUER)}


@pytest.mark.parametrize(
    ("says", "answer"),
    [
        (None, Answer.NOT_THERE),
        (CannotBeAsked("no C-FIND"), Answer.CANNOT),
        (UpstreamError("away"), Answer.AWAY),
        (PatientFacts(issuer="", patient_id=""), Answer.CANNOT),
    ],
)
def test_without_an_answer_the_report_names_whom_we_hold(
    site: Site, store: Store, says: PatientFacts | Exception | None, answer: Answer
) -> None:
    """Which it was is kept, and the delivery asks again; only an archive that is away holds the report back."""
    site.told["main"].says = says
    store.open()
    site.ticks()
    kept = site.run.encodings[1]
    assert (kept.demographics, kept.asked) == (site.ours, {"main": answer.value})
    assert len(site.told["main"].asked) > 1
    assert bool(store.received) is (answer is not Answer.AWAY)
    site.told["main"].says = site.person()
    site.ticks()
    assert site.deliveries == {"main": (DeliveryState.SENT, 1)}


def test_a_correction_during_the_delay_voids_the_report(late: Site, store: Store) -> None:
    """It is encoded anew under new UIDs; the voided bytes never arrive, and the log names fields, not values."""
    assert late.deliveries == {"main": (DeliveryState.RETRYING, 1)}
    void = late.encoded(1)
    late.told["main"].says = late.person(name=CORRECTED)
    store.open()
    late.ticks()
    assert late.deliveries == {"main": (DeliveryState.SENT, 2)}
    anew = late.encoded(2)
    assert uids(store.received) == set(anew)
    assert not set(anew) & set(void)
    assert len(anew) == len(void) == 3
    assert names(store.received) == {CORRECTED}
    assert late.encoded(1) == void
    assert (late.run.state, late.run.version, late.run.encoding) == (RunState.REPORTED, 1, 2)
    log = late.log.getvalue()
    assert "delivery.voided" in log
    assert "PatientName" in log
    assert CORRECTED not in log
    assert late.ours.name not in log


def test_the_new_report_of_a_run_differs_in_whom_it_names_only(late: Site, store: Store) -> None:
    """Same result, version and time of issue: a correction of a header is no new answer."""
    late.told["main"].says = late.person(sex="F")
    store.open()
    late.ticks()
    first, again = (dcmread(late.bench.folders.outbox / path) for path in report_paths(late))
    assert (first.PatientSex, again.PatientSex) == ("O", "F")
    assert first.SeriesInstanceUID != again.SeriesInstanceUID
    for keyword in ("ContentDate", "ContentTime", "StudyInstanceUID", "PatientID", "PatientName"):
        assert first[keyword].value == again[keyword].value


def report_paths(site: Site) -> list[str]:
    """Return the file of the report of the first and of the second encoding."""
    with site.bench.database.read() as ledger:
        return [runs.objects_of(ledger, site.run.run_key, number)[-1].path for number in (1, 2)]


def test_a_kill_between_void_and_encoding_loses_nothing(late: Site, store: Store) -> None:
    """What is to be encoded anew stands in the ledger: the engine may know of nothing."""
    late.told["main"].says = late.person(name=CORRECTED)
    late.bench.tick()  # asks, and voids
    assert late.run.state is RunState.QUEUED
    assert late.deliveries == {"main": (DeliveryState.PENDING, 2)}
    late.work.forget()
    late.told["main"].says = UpstreamError("away")  # whom to name is frozen: nobody is asked for it again
    late.bench.tick()
    assert late.run.state is RunState.REPORTED
    late.told["main"].says = late.person(name=CORRECTED)
    store.open()
    late.ticks()
    assert names(store.received) == {CORRECTED}


def test_a_kill_while_encoding_anew_makes_the_same_bytes(late: Site) -> None:
    """The record is frozen, so the objects are: they are made again from it, whatever the archive says by then."""
    late.told["main"].says = late.person(name=CORRECTED)
    late.ticks()
    before = late.encoded(2)
    assert before
    with late.bench.database.write() as ledger:  # as if the commit after the files had never been
        ledger.execute(delete(tables.outbox_object).where(tables.outbox_object.c.encoding == 2))
        ledger.execute(update(tables.run).values(state=RunState.RUNNING, encoded_at=None))
    late.told["main"].says = late.person(name="SOMEBODY^NEW")
    late.bench.steps.encode(late.run.run_key)
    assert late.encoded(2) == before


def test_an_exchanged_model_does_not_stop_a_report_from_being_encoded_anew(late: Site, store: Store) -> None:
    """Its answer is issued: only its header changes."""
    late.told["main"].says = late.person(name=CORRECTED)
    late.bench.tick()
    (name, served) = next(iter(late.bench.steps.tasks.items()))
    exchanged = replace(served, bundle_digest="sha256:" + "0" * 64)
    late.bench.steps.tasks[name] = exchanged  # type: ignore[index] # another model was configured
    late.bench.steps.infer(late.run.run_key)
    late.bench.steps.encode(late.run.run_key)
    assert late.run.state is RunState.REPORTED
    assert len(late.encoded(2)) == 3


def test_a_study_moved_to_somebody_else_during_the_delay_stops_the_report(late: Site, store: Store) -> None:
    """Nothing is sent, the case is failed and says why; once it is mended, `retry` sends it."""
    late.told["main"].says = late.person(patient_id="STRANGER-7")
    store.open()
    late.ticks()
    assert store.received == []
    assert late.deliveries == {"main": (DeliveryState.DEAD, 1)}
    assert late.case.state is CaseState.FAILED
    assert "another PatientID" in late.case.reasons[0].text
    assert "STRANGER-7" not in late.case.reasons[0].text
    late.told["main"].says = late.person()
    with late.bench.database.write() as ledger:
        (dead,) = deliveries.of_run(ledger, late.run.run_key)
        deliveries.revive(ledger, dead, late.bench.now)
    late.ticks()
    assert uids(store.received) == set(late.encoded(1))


def test_what_another_archive_got_already_stays_as_sent(two: Site, store: Store, second: Store) -> None:
    """Only the unsent delivery waits for the new encoding."""
    store.open()
    two.ticks()
    assert two.deliveries["main"] == (DeliveryState.SENT, 1)
    two.told["second"].says = two.person(name=CORRECTED)
    second.open()
    two.ticks()
    assert two.deliveries == {"main": (DeliveryState.SENT, 1), "second": (DeliveryState.SENT, 2)}
    assert uids(store.received) == set(two.encoded(1))
    assert uids(second.received) == set(two.encoded(2))


def test_an_archive_that_has_a_part_gets_the_rest_of_the_same_report(two: Site, store: Store, second: Store) -> None:
    """It corrected what it had by itself; the other one, which has nothing yet, gets the corrected report."""
    store.statuses = [0x0000, 0xA700]
    store.open()
    two.ticks(1)
    assert two.deliveries["main"] == (DeliveryState.RETRYING, 1)
    for told in two.told.values():
        told.says = two.person(name=CORRECTED)
    second.open()
    two.ticks(6)
    assert two.deliveries == {"main": (DeliveryState.SENT, 1), "second": (DeliveryState.SENT, 2)}
    assert uids(store.received) == set(two.encoded(1))
    assert uids(second.received) == set(two.encoded(2))


def test_a_report_that_is_sent_again_is_the_one_that_lies_there(late: Site, store: Store) -> None:
    """A correction since then makes no second report beside it."""
    store.open()
    late.ticks()
    late.told["main"].says = late.person(name=CORRECTED)
    with late.bench.database.write() as ledger:
        (sent,) = deliveries.of_run(ledger, late.run.run_key)
        deliveries.revive(ledger, sent, late.bench.now)
    late.ticks()
    assert late.deliveries == {"main": (DeliveryState.SENT, 1)}
    assert len(store.received) == 6
    assert uids(store.received) == set(late.encoded(1))


def test_one_archive_that_files_it_elsewhere_stops_what_no_archive_has_yet(two: Site, second: Store) -> None:
    """Until a person has looked: which of both is right, no program can tell."""
    two.told["main"].says = two.person(patient_id="STRANGER-7")
    two.told["second"].says = UpstreamError("away")
    two.ticks()
    second.open()
    two.told["second"].says = two.person()
    two.ticks()
    assert {state for state, _ in two.deliveries.values()} == {DeliveryState.DEAD}
    assert second.received == []


def test_two_archives_that_spell_otherwise_each_get_their_own(two: Site, store: Store, second: Store) -> None:
    """An encoding is made once per spelling, however often either archive is asked in turn."""
    two.told["main"].says = two.person(name="ONE^WAY")
    two.told["second"].says = two.person(name="OTHER^WAY")
    two.ticks(8)
    assert two.run.encoding == 3
    store.open()
    second.open()
    two.ticks()
    assert (names(store.received), names(second.received)) == ({"ONE^WAY"}, {"OTHER^WAY"})
    assert two.run.encoding == 3


def test_a_correction_taken_back_needs_no_third_encoding(late: Site, store: Store) -> None:
    """The first one is right again, and its bytes still lie in the outbox."""
    late.told["main"].says = late.person(name=CORRECTED)
    late.ticks()
    late.told["main"].says = late.person()
    store.open()
    late.ticks()
    assert late.deliveries == {"main": (DeliveryState.SENT, 1)}
    assert uids(store.received) == set(late.encoded(1))


def test_nobody_is_asked_in_shadow_mode(site: Site) -> None:
    """Where nothing is delivered, no archive needs to say to whom."""
    shadow = site.bench.settings.model_copy(update={"mode": "shadow"})
    site.bench.steps = replace(site.bench.steps, settings=shadow)
    site.ticks()
    assert site.run.state is RunState.REPORTED
    assert site.told["main"].asked == []


OURS = Demographics(issuer="A", patient_id="1", name="DOE^JANE", birth_date="20100203", sex="F", accession_number="7")


@pytest.mark.parametrize(
    ("patient", "accession_number", "differs"),
    [
        (PatientFacts(issuer="A", patient_id="1", name="DOE^JANE", birth_date="20100203", sex="F"), "7", []),
        (PatientFacts(issuer="", patient_id=" 1 ", name="DOE^JANE^^", birth_date="20100203", sex="F"), "7 ", []),
        (PatientFacts(issuer="", patient_id="1"), "", []),
        (PatientFacts(issuer="B", patient_id="2"), "", ["IssuerOfPatientID", "PatientID"]),
        (PatientFacts(issuer="A", patient_id="1", name="Doe^Jane"), "", ["PatientName"]),
        (PatientFacts(issuer="A", patient_id="1", birth_date="20100204"), "", ["PatientBirthDate"]),
        (PatientFacts(issuer="A", patient_id="1", sex="M"), "", ["PatientSex"]),
        (PatientFacts(issuer="A", patient_id="1"), "8", ["AccessionNumber"]),
    ],
)  # fmt: skip
def test_only_what_an_archive_says_otherwise_is_a_correction(
    patient: PatientFacts, accession_number: str, differs: list[str]
) -> None:
    """Spaces, trailing carets and what it leaves out are none; the second ID of a patient is one."""
    found = FoundStudy(study_instance_uid="1.2", patient=patient, accession_number=accession_number)
    told = as_told(OURS, found, "main", [("A", "1"), ("B", "2")])
    assert differing(OURS, told) == differs
    if not differs:
        assert told == OURS


@pytest.mark.parametrize(("issuer", "patient_id"), [("A", "01"), ("A", "3"), ("B", "1"), ("", "3"), ("A", "2")])
def test_no_other_id_is_ever_taken_for_the_patients(issuer: str, patient_id: str) -> None:
    """Compared exactly, zeros included, each number under its own issuer."""
    found = FoundStudy(study_instance_uid="1.2", patient=PatientFacts(issuer=issuer, patient_id=patient_id))
    with pytest.raises(AnotherPatientError):
        as_told(OURS, found, "main", [("A", "1"), ("B", "2")])


@pytest.mark.parametrize(
    ("ours", "told", "named"),
    [
        ("山田^太郎", "^", ""),  # Latin 1, dropped
        ("山田^太郎", "??????^??????", ""),  # ASCII, replaced byte by byte
        ("Yamada^Tarou=山田^太郎=やまだ^たろう", "Yamada^Tarou=^=^", ""),
        ("Yamada^Tarou=山田^太郎", "Yamada^Tarou", ""),
        ("Müller^Jörg", "M?ller^J\ufffdrg", ""),
        ("Müller^Jörg", "Mller^Jrg", ""),
        ("Müller^Jörg", "Mu\u0308ller^Jo\u0308rg", ""),  # the same letters in two code points
        ("Müller^Jörg", "Mueller^Jörg", "Mueller^Jörg"),
        ("Müller^Jörg", "Müller^Georg", "Müller^Georg"),
        ("Yamada^Tarou=山田^太郎", "Suzuki^Tarou=^", "Suzuki^Tarou"),  # our ideographs may be somebody else's
        ("DOE^JANE", "山田^太郎", "山田^太郎"),
        ("", "DOE^JANE", "DOE^JANE"),
    ],
)
def test_letters_lost_in_an_answer_are_no_correction(ours: str, told: str, named: str) -> None:
    """An archive answers in one character set for all; what it cannot write in it has not changed."""
    before = replace(OURS, name=ours)
    found = FoundStudy(study_instance_uid="1.2", patient=PatientFacts(issuer="A", patient_id="1", name=told))
    assert as_told(before, found, "main", []).name == (named or ours)


def test_a_corrected_header_keeps_nothing_that_went_with_the_old_value(studies: list[Path]) -> None:
    """Age goes with the birth date, qualifiers with the ID; text in another character set stays readable."""
    ds = dcmread(studies[0])
    ds.SpecificCharacterSet = "ISO_IR 100"
    ds.StudyDescription = "Schädel"
    ds.PatientAge = "010Y"
    ds.IssuerOfPatientIDQualifiersSequence = []
    wanted = Demographics(issuer="B", patient_id="2", name=CORRECTED, birth_date="20150203")
    correct(ds, wanted, default_issuer="A")
    assert of_header(ds, default_issuer="A").name == CORRECTED
    assert (ds.IssuerOfPatientID, ds.PatientID, ds.StudyDescription) == ("B", "2", "Schädel")
    assert "PatientAge" not in ds
    assert "IssuerOfPatientIDQualifiersSequence" not in ds

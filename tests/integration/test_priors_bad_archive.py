"""Archives that misbehave: what they claim is checked, what they send is filed under its own name, and it ends."""

from __future__ import annotations

from datetime import date, timedelta
from typing import TYPE_CHECKING, Any

import pytest
from pydicom import Dataset, dcmread
from pydicom.uid import MRImageStorage
from pynetdicom import AE, build_context, evt
from pynetdicom.sop_class import (
    StudyRootQueryRetrieveInformationModelFind,
    StudyRootQueryRetrieveInformationModelGet,
    StudyRootQueryRetrieveInformationModelMove,
)

from dicom_node.demo_pacs import free_port
from dicom_node.ledger import patients, priors
from dicom_node.ledger.tables import PriorState, prior_series
from dicom_node.priors import search
from dicom_node.receive.intake import Intake, Origin
from tests.factories.library import ISSUER, PATIENT_ID, Library, a_study

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

TODAY, BEFORE = date(2026, 2, 20), date(2025, 6, 1)


class BadArchive:
    """A real SCP that answers as told, whatever it was asked."""

    def __init__(self) -> None:
        self.port = free_port()
        self.studies: list[Dataset] = []
        self.series: list[Dataset] = []
        self.status = 0x0000  # final one of every operation
        self.sends: list[Path] = []
        self.questions: list[Dataset] = []
        self.moves_to: int | None = None  # the port it knows our AE title by
        self.meanwhile: Callable[[], object] = lambda: None  # what happens here while it sends
        self.ae = AE(ae_title="BAD")
        self.ae.add_supported_context(StudyRootQueryRetrieveInformationModelFind)
        self.ae.add_supported_context(StudyRootQueryRetrieveInformationModelGet)
        self.ae.add_supported_context(StudyRootQueryRetrieveInformationModelMove)
        self.ae.add_supported_context(MRImageStorage, scu_role=True, scp_role=True)
        handlers = [(evt.EVT_C_FIND, self._find), (evt.EVT_C_GET, self._get), (evt.EVT_C_MOVE, self._move)]
        self.ae.start_server(("127.0.0.1", self.port), block=False, evt_handlers=handlers)

    def pacs(self, *methods: str) -> dict[str, Any]:
        """Return how to reach it."""
        return {
            "name": "bad",
            "dimse": {"ae_title": "BAD", "host": "127.0.0.1", "port": self.port, "timeout_s": 2},
            "default_issuer": ISSUER,
            "results": False,
            "priors": {"methods": list(methods)},
            "retry": {"first_s": 1, "longest_s": 4, "give_up_after_h": 1},
        }

    def tell(self, paths: list[Path], *, instances: int | None = None, **said: str) -> None:
        """Say that it holds the study of some files, with something else said about it."""
        ds = dcmread(paths[0], stop_before_pixels=True)
        study = Dataset()
        study.update({key: ds[key].value for key in ("StudyInstanceUID", "StudyDate", "PatientID", "PatientBirthDate")})
        for keyword, value in said.items():
            setattr(study, keyword, value)
        self.studies.append(study)
        series = Dataset()
        series.update({key: ds[key].value for key in ("StudyInstanceUID", "SeriesInstanceUID", "Modality")})
        series.NumberOfSeriesRelatedInstances = len(paths) if instances is None else instances
        self.series.append(series)

    def _find(self, event: evt.Event) -> Iterator[tuple[int, Dataset | None]]:
        self.questions.append(event.identifier)
        of_studies = event.identifier.QueryRetrieveLevel == "STUDY"
        for answer in self.studies if of_studies else self.series:
            answer.QueryRetrieveLevel = event.identifier.QueryRetrieveLevel
            yield 0xFF00, answer
        yield self.status, None

    def _get(self, event: evt.Event) -> Iterator[Any]:
        self.meanwhile()
        yield len(self.sends)
        for path in self.sends:
            yield 0xFF00, dcmread(path)
        if self.status:
            yield self.status, Dataset()

    def _move(self, event: evt.Event) -> Iterator[Any]:
        if self.moves_to is None:
            yield None, None  # the destination is unknown: 0xA801
            return
        self.meanwhile()
        self._store(event.assoc.requestor.ae_title)
        yield "127.0.0.1", self.moves_to
        yield 0  # it is sent already: pynetdicom would not say on whose behalf

    def _store(self, originator: str) -> None:
        association = self.ae.associate(
            "127.0.0.1", self.moves_to, [build_context(MRImageStorage)], ae_title=originator
        )
        for path in self.sends:
            association.send_c_store(dcmread(path), originator_aet=originator, originator_id=1)
        association.release()


@pytest.fixture
def bad() -> Iterator[BadArchive]:
    """A serving archive."""
    found = BadArchive()
    yield found
    found.ae.shutdown()


def test_an_archive_that_ignores_the_patient_id_brings_nobody_else(
    bad: BadArchive, open_library: Callable[..., Library], tmp_path: Path
) -> None:
    """Other IDs, another issuer, other case: counted, not kept and never fetched; padding alone is the same ID."""
    ours = a_study(tmp_path / "ours", BEFORE)
    bad.tell(ours, PatientID=f"{PATIENT_ID} ")
    for number, said in enumerate(
        ({"PatientID": "OTHER"}, {"PatientID": PATIENT_ID.lower()}, {"PatientID": f"0{PATIENT_ID}"}, {"PatientID": ""})
    ):
        bad.tell(a_study(tmp_path / str(number), BEFORE + timedelta(days=number + 1)), **said)
    bad.tell(a_study(tmp_path / "issuer", TODAY - timedelta(days=3)), IssuerOfPatientID="ELSEWHERE")
    bad.sends = ours
    library = open_library(bad.pacs("c-get"))
    library.receive(a_study(tmp_path / "scanner", TODAY))
    library.ensure()
    library.work()
    assert len(library.summary()[0]["studies"]) == 1
    assert "found 1, fetched 1" in library.look().text
    assert "5 answers were about another patient" in library.look().text
    asked_for = [each.StudyInstanceUID for each in bad.questions if each.QueryRetrieveLevel == "SERIES"]
    assert asked_for == [str(dcmread(ours[0]).StudyInstanceUID)]
    with library.database.read() as ledger:
        assert len(patients.all_patients(ledger)) == 1


@pytest.mark.parametrize(("said", "found"), [("HOSP&1.2.3", 1), (ISSUER, 1), ("ELSEWHERE", 0)])
def test_an_archive_may_answer_with_an_alias_of_the_issuer(
    bad: BadArchive, open_library: Callable[..., Library], tmp_path: Path, said: str, found: int
) -> None:
    """Its study is the patient's, what comes of it is filed under the issuer itself, and nobody is made twice."""
    ours = a_study(tmp_path / "ours", BEFORE, IssuerOfPatientID=said)
    bad.tell(ours, IssuerOfPatientID=said)
    bad.sends = ours
    library = open_library(bad.pacs("c-get"), issuer_aliases={"HOSP&1.2.3": ISSUER})
    library.receive(a_study(tmp_path / "scanner", TODAY))
    library.ensure()
    library.work()
    assert [each["state"] for each in library.summary()[0]["studies"]] == ["fetched"] * found
    assert len(library.held()) == 1 + found
    with library.database.read() as ledger:
        assert [each.issuer for each in patients.all_patients(ledger)] == [ISSUER]


def test_another_patients_images_are_filed_under_their_own_id_and_the_series_is_refused(
    bad: BadArchive, open_library: Callable[..., Library], tmp_path: Path
) -> None:
    """The archive said they were ours; their headers say whose they are. They are not asked for again."""
    said = a_study(tmp_path / "ours", BEFORE)
    bad.tell(said)
    bad.sends = relabelled(said, "SENTINEL-OTHER")
    library = open_library(bad.pacs("c-get"))
    library.receive(a_study(tmp_path / "scanner", TODAY))
    library.ensure()
    library.work()
    (study,) = library.summary()[0]["studies"]
    assert study["state"] == "refused"
    assert "3 of the instances that came are another patient's" in study["reason"]
    assert library.held().isdisjoint({study["study_instance_uid"]})
    with library.database.read() as ledger:
        (other,) = patients.find(ledger, "SENTINEL-OTHER")
        assert len(patients.facts_of(ledger, other.row_id)) == 3
    library.now += timedelta(hours=7)
    library.ensure(waiting=True)
    assert library.work() == 1  # the question, and no retrieval
    assert "SENTINEL" not in library.log.getvalue()


def relabelled(paths: list[Path], patient_id: str) -> list[Path]:
    """Write the files again with another PatientID and other instances' UIDs, in the same series."""
    written = []
    for path in paths:
        ds = dcmread(path)
        ds.PatientID = patient_id
        written.append(path.with_suffix(".other"))
        ds.save_as(written[-1])
    return written


@pytest.mark.parametrize(
    ("status", "open_after", "words"),
    [
        (0xA700, True, "C-FIND status 0xA700: the archive cannot answer now"),
        (0xC001, True, "C-FIND status 0xC001: the archive cannot answer now"),
        (0xFE00, True, "C-FIND status 0xFE00: the archive cannot answer now"),
        (0xA900, False, "C-FIND status 0xA900: it finds the identifier does not match the SOP class"),
        (0x0122, False, "C-FIND status 0x0122: it does not support the SOP class"),
    ],
)
def test_each_status_of_a_question_has_its_consequence(
    bad: BadArchive, open_library: Callable[..., Library], tmp_path: Path, status: int, *, open_after: bool, words: str
) -> None:
    """What may pass is asked again, what cannot ends as failed; answers before a failure are not believed."""
    bad.tell(a_study(tmp_path / "ours", BEFORE))
    bad.status = status
    library = open_library(bad.pacs("c-get"))
    library.receive(a_study(tmp_path / "scanner", TODAY))
    library.ensure()
    library.work()
    state = library.look()
    assert (state.open, state.failed) == (open_after, not open_after)
    assert words in state.text
    assert library.summary()[0]["studies"] == []


def test_an_archive_that_keeps_sending_less_than_it_said_is_believed_in_the_end(
    bad: BadArchive, open_library: Callable[..., Library], tmp_path: Path
) -> None:
    """Three attempts, each written down; then the series has failed, and what came stays."""
    ours = a_study(tmp_path / "ours", BEFORE)
    bad.tell(ours, instances=5)
    bad.sends = ours
    library = open_library(bad.pacs("c-move", "c-get"))
    library.receive(a_study(tmp_path / "scanner", TODAY))
    library.ensure()
    for _ in range(3):
        library.work()
        library.now += timedelta(seconds=5)
    (study,) = library.summary()[0]["studies"]
    assert study["state"] == "failed"
    assert "c-move: C-MOVE status 0xA801: it does not know our AE title as a move destination" in study["reason"]
    assert "c-get: 3 of 5 instances came" in study["reason"]
    assert study["series"][0]["attempts"] == 3
    assert library.look().failed
    assert library.due() == []


def unreadable(paths: list[Path]) -> list[Path]:
    """Take the pixels out of files, so that nothing can be read of them but that they came."""
    for path in paths:
        ds = dcmread(path)
        del ds.PixelData
        ds.save_as(path)
    return paths


@pytest.mark.parametrize("method", ["c-get", "c-move"])
@pytest.mark.parametrize("at_once", [False, True])
def test_what_another_retrieval_brings_at_the_same_time_does_not_count(
    bad: BadArchive, open_library: Callable[..., Library], tmp_path: Path, method: str, *, at_once: bool
) -> None:
    """Objects of which nothing can be read complete the series they were sent for, and not an empty one beside it."""
    bad.tell(a_study(tmp_path / "ours", BEFORE))
    odd = unreadable(a_study(tmp_path / "odd", BEFORE - timedelta(days=1)))
    library = open_library(bad.pacs(method))
    bad.moves_to = library.settings.node.port
    library.receive(a_study(tmp_path / "scanner", TODAY))
    library.ensure()
    bad.sends = [] if at_once else odd
    bad.meanwhile = lambda: fetched_beside(library, odd) if at_once else None
    library.work()
    (study,) = library.summary()[0]["studies"]
    (series,) = study["series"]
    if at_once:
        assert series["state"] == "wanted"
        assert "0 of 3 instances came" in series["reason"]
    else:
        assert (series["state"], series["fetched"]) == ("fetched", 3)


def fetched_beside(library: Library, paths: list[Path]) -> None:
    """Do what a retrieval of another series of the archive does while one is at work."""
    other = {"pacs": "bad", "study_instance_uid": "1.2.3", "series_instance_uid": "1.2.3.4", "patient": library.row}
    counts = {"instances": len(paths), "fetched": 0, "attempts": 0, "reason": ""}
    times = {"next_attempt_at": library.now, "started_at": library.now}
    with library.database.write() as ledger:
        lookup = priors.latest_lookup(ledger, library.row, "bad")
        assert lookup is not None
        rest = {"lookup": lookup.lookup_id, "state": PriorState.WANTED}
        ledger.execute(prior_series.insert().values(**other, **counts, **times, **rest))
    origin = Origin(name="(fetched)", default_issuer=ISSUER, fetched_from="bad")
    for path in paths:
        Intake(library.database, library.files, origin, lambda: library.now).take(path.read_bytes())


def test_a_copy_that_cannot_be_read_does_not_stand_for_an_instance_that_is_missing(
    bad: BadArchive, open_library: Callable[..., Library], tmp_path: Path
) -> None:
    """What lies here already counts once, however often it comes."""
    ours = a_study(tmp_path / "ours", BEFORE)
    bad.tell(ours)
    library = open_library(bad.pacs("c-get"))
    library.receive(a_study(tmp_path / "scanner", TODAY))
    library.receive(ours[:2])
    bad.sends = unreadable(ours[:2])
    library.ensure()
    library.work()
    (study,) = library.summary()[0]["studies"]
    assert study["series"][0]["state"] == "wanted"
    assert "2 of 3 instances came" in study["series"][0]["reason"]


def test_an_id_with_a_wild_card_is_never_asked_for(
    bad: BadArchive, open_library: Callable[..., Library], tmp_path: Path
) -> None:
    """It would match other people; the reason is shown."""
    library = open_library(bad.pacs("c-get"))
    library.receive(a_study(tmp_path / "scanner", TODAY, PatientID="SENTINEL*"))
    with library.database.write() as ledger:
        (patient,) = patients.all_patients(ledger)
        found = {"settings": library.settings, "held_studies": patients.receptions(ledger, patient.row_id)}
        search.ensure(ledger, patient.row_id, **found, waiting=True, now=library.now)
        state = search.look(ledger, patient.row_id, **found, now=library.now)
    assert library.due() == []
    assert not state.open
    assert "wild card" in state.text
    assert bad.questions == []


def test_an_answer_without_end_is_not_believed(
    bad: BadArchive, open_library: Callable[..., Library], tmp_path: Path
) -> None:
    """More than a thousand studies of one patient come from an archive that does not look at the key."""
    bad.tell(a_study(tmp_path / "ours", BEFORE))
    bad.studies *= 1001
    library = open_library(bad.pacs("c-get"))
    library.receive(a_study(tmp_path / "scanner", TODAY))
    library.ensure()
    library.work()
    assert "over 1000 answers to one question" in library.look().text
    assert library.look().failed

"""Rejection notes: what an archive takes back leaves the time line, in whatever order things come."""

from __future__ import annotations

import io
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import numpy as np
import pytest
from pydicom import Dataset, dcmread
from pydicom.sequence import Sequence

from dicom_node.ledger import arrivals, patients, rejections
from dicom_node.ledger.database import Database
from dicom_node.ledger.tables import ArrivalState, arrival, instance, outbox_object, patient_alias, run, study_owner
from dicom_node.observe.logs import open_log
from dicom_node.receive.files import InstanceFiles
from dicom_node.receive.indexer import Indexer
from dicom_node.receive.reader import Reader
from dicom_node.settings import Logging
from dicom_node.timeline.model import RunState
from dicom_node.timeline.rejection import RejectionNote
from tests.factories.mr import classic_series, write
from tests.factories.notes import (
    BOOKMARKS,
    INCORRECT_WORKLIST_ENTRY,
    PATIENT_SAFETY,
    QUALITY,
    RETENTION_EXPIRED,
    note,
    write_note,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from pydicom.sr.coding import Code
    from sqlalchemy import Connection

ISSUER = "HOSPITAL"
NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)


@dataclass
class Reception:
    """Real files, ledger, reader child and indexer, without a network."""

    database: Database
    files: InstanceFiles
    indexer: Indexer
    log: io.StringIO

    def receive(self, *paths: Path, named: str | None = None) -> None:
        """Take files in as the listener does, and read them; `named`: the UID that the C-STORE command gave."""
        for path in paths:
            ds = dcmread(path, stop_before_pixels=True)
            new = arrivals.Arrival(
                sop_instance_uid=named or ds.SOPInstanceUID,
                sop_class_uid=ds.SOPClassUID,
                transfer_syntax_uid=ds.file_meta.TransferSyntaxUID,
                path=self.files.write((path.read_bytes(),)),
                size_bytes=path.stat().st_size,
                calling_ae_title="ARCHIVE",
                default_issuer=ISSUER,
                stat=False,
                received_at=NOW,
            )
            with self.database.write() as ledger:
                arrivals.record(ledger, new)
        self.indexer.run_once()

    def rejected(self, patient_id: str) -> frozenset[str]:
        """Return what is rejected of a patient."""
        with self.database.read() as ledger:
            (patient,) = patients.find(ledger, patient_id)
            return rejections.rejected(ledger, patient.row_id)

    def latest(self) -> tuple[str, str]:
        """Return state and reason of the newest arrival."""
        with self.database.read() as ledger:
            row = ledger.execute(arrival.select().order_by(arrival.c.id.desc())).first()
        assert row is not None
        return row.state, row.reason


@pytest.fixture(scope="module")
def reader() -> Iterator[Reader]:
    """A reader with its child, which takes longer to start than to read."""
    with Reader(timeout_s=30) as found:
        yield found


@pytest.fixture
def node(tmp_path: Path, reader: Reader) -> Iterator[Reception]:
    """A node's way in."""
    database = Database(f"sqlite:///{tmp_path / 'ledger.sqlite'}")
    database.migrate()
    files = InstanceFiles(tmp_path / "instances")
    files.prepare()
    log = io.StringIO()
    indexer = Indexer(database, files, reader, open_log(Logging(level="debug", format="json"), b"key", log))
    yield Reception(database=database, files=files, indexer=indexer, log=log)
    database.close()


@pytest.fixture
def images(tmp_path: Path) -> list[Path]:
    """A small series of one patient."""
    return a_series(tmp_path / "a", "SENTINEL-A")


def a_series(folder: Path, patient_id: str) -> list[Path]:
    """Write three slices of a patient."""
    series = classic_series(
        np.zeros((3, 8, 8), dtype=np.uint16),
        np.eye(4),
        name=patient_id,
        PatientID=patient_id,
        AcquisitionDate="20250602",
    )
    return write(series, folder)


def uids(paths: list[Path]) -> frozenset[str]:
    """Return the SOP Instance UIDs of files."""
    return frozenset(str(dcmread(path, stop_before_pixels=True).SOPInstanceUID) for path in paths)


@pytest.mark.parametrize("title", [QUALITY, PATIENT_SAFETY, INCORRECT_WORKLIST_ENTRY])
def test_a_note_takes_the_named_instances_out(node: Reception, images: list[Path], tmp_path: Path, title: Code) -> None:
    """Each title that speaks against the images does so, and the arrival says what it was."""
    node.receive(*images)
    node.receive(write_note(note(images[:2], title), tmp_path))
    assert node.rejected("SENTINEL-A") == uids(images[:2])
    assert node.latest() == (ArrivalState.NOT_AN_INPUT, f"rejection note: {title.value}, 2 instances")


def test_an_expired_retention_says_nothing_against_the_images(
    node: Reception, images: list[Path], tmp_path: Path
) -> None:
    """The archive no longer keeps the scan; it happened nevertheless."""
    node.receive(*images, write_note(note(images, RETENTION_EXPIRED), tmp_path))
    assert node.rejected("SENTINEL-A") == frozenset()
    with node.database.read() as ledger:
        (patient,) = patients.find(ledger, "SENTINEL-A")
        assert set(rejections.codes(ledger, patient.row_id).values()) == {"113039"}


def test_other_key_objects_reject_nothing(node: Reception, images: list[Path], tmp_path: Path) -> None:
    """A radiologist's bookmarks are kept and never worked on."""
    node.receive(*images, write_note(note(images, BOOKMARKS), tmp_path))
    assert node.rejected("SENTINEL-A") == frozenset()
    assert node.latest() == (ArrivalState.NOT_AN_INPUT, "key-object-selection")


def test_a_title_of_a_private_scheme_rejects_nothing(node: Reception, images: list[Path], tmp_path: Path) -> None:
    """113001 means something in the scheme DCM only."""
    ds = note(images)
    ds.ConceptNameCodeSequence[0].CodingSchemeDesignator = "99LOCAL"
    node.receive(*images, write_note(ds, tmp_path))
    assert node.rejected("SENTINEL-A") == frozenset()


def test_a_note_may_come_before_its_images(node: Reception, images: list[Path], tmp_path: Path) -> None:
    """They are rejected when they come, and stay so when they come again."""
    node.receive(write_note(note(images), tmp_path))
    node.receive(*images)
    node.receive(*images)
    assert node.rejected("SENTINEL-A") == uids(images)


def test_a_note_has_the_patient_decided_anew(node: Reception, images: list[Path], tmp_path: Path) -> None:
    """What was decided before it is no longer the last word."""
    node.receive(*images)
    with node.database.write() as ledger:
        (before,) = patients.find(ledger, "SENTINEL-A")
        patients.decided(ledger, before, None)
        assert patients.undecided(ledger, NOW, 10) == []
    node.receive(write_note(note(images), tmp_path))
    with node.database.read() as ledger:
        assert [each.patient_id for each in patients.undecided(ledger, NOW, 10)] == ["SENTINEL-A"]


def test_a_note_of_one_patient_cannot_reject_anothers_images(
    node: Reception, images: list[Path], tmp_path: Path
) -> None:
    """It counts for the patient it names, whatever it names."""
    others = a_series(tmp_path / "b", "SENTINEL-B")
    node.receive(*images, *others)
    forged = note(others)
    forged.PatientID = "SENTINEL-A"
    node.receive(write_note(forged, tmp_path))
    assert node.rejected("SENTINEL-B") == frozenset()
    assert not node.rejected("SENTINEL-A") & uids(images)


def test_a_note_about_a_retired_id_counts_for_who_it_was_merged_into(
    node: Reception, images: list[Path], tmp_path: Path
) -> None:
    """Whether the note came before the merge or after it, and for no longer than the merge stands."""
    others = a_series(tmp_path / "b", "SENTINEL-B")
    node.receive(*images, *others, write_note(note(images[:1]), tmp_path))
    with node.database.write() as ledger:
        (survivor,) = patients.find(ledger, "SENTINEL-B")
        ledger.execute(
            patient_alias.insert().values(
                issuer=ISSUER, patient_id="SENTINEL-A", patient=survivor.row_id, since=NOW, source="test"
            )
        )
    node.receive(write_note(note(images[1:2]), tmp_path))
    assert node.rejected("SENTINEL-B") == uids(images[:2])
    with node.database.write() as ledger:
        ledger.execute(patient_alias.delete())
    assert node.rejected("SENTINEL-B") == frozenset()
    assert node.rejected("SENTINEL-A") == uids(images[:2])


def test_a_note_about_a_study_given_to_somebody_by_hand_counts_for_them(
    node: Reception, images: list[Path], tmp_path: Path
) -> None:
    """Study and note still carry the wrong ID, both the same; a third patient's note says nothing about it."""
    node.receive(*a_series(tmp_path / "b", "SENTINEL-B"), *images)
    with node.database.write() as ledger:
        (owner,) = patients.find(ledger, "SENTINEL-B")
        uid = dcmread(images[0], stop_before_pixels=True).StudyInstanceUID
        ledger.execute(
            study_owner.insert().values(study_instance_uid=uid, patient=owner.row_id, since=NOW, source="test")
        )
        ledger.execute(instance.update().where(instance.c.study_instance_uid == uid).values(patient=owner.row_id))
    forged = note(images)
    forged.PatientID = "SENTINEL-C"
    node.receive(write_note(forged, tmp_path))
    assert node.rejected("SENTINEL-B") == frozenset()
    node.receive(write_note(note(images), tmp_path))
    assert node.rejected("SENTINEL-B") == uids(images)


def test_a_note_sent_twice_says_nothing_new(node: Reception, images: list[Path], tmp_path: Path) -> None:
    """The second copy is entered as the first was."""
    path = write_note(note(images), tmp_path)
    node.receive(*images, path, path)
    assert node.rejected("SENTINEL-A") == uids(images)
    assert node.latest()[0] == ArrivalState.NOT_AN_INPUT


def test_a_note_cannot_change_sides(node: Reception, images: list[Path], tmp_path: Path) -> None:
    """The same note under another patient's name is a conflict for a person to look at, and changes nothing."""
    ds = note(images)
    node.receive(*images, write_note(ds, tmp_path))
    node.receive(*a_series(tmp_path / "b", "SENTINEL-B"))
    ds.PatientID = "SENTINEL-B"
    node.receive(write_note(ds, tmp_path))
    assert node.latest() == (ArrivalState.CONFLICT, "same SOP Instance UID, other patient")
    assert node.rejected("SENTINEL-A") == uids(images)
    assert node.rejected("SENTINEL-B") == frozenset()


def test_the_harsher_of_two_notes_counts(node: Reception, images: list[Path], tmp_path: Path) -> None:
    """An expired retention noted later does not take a rejection back."""
    node.receive(*images, write_note(note(images), tmp_path), write_note(note(images, RETENTION_EXPIRED), tmp_path))
    assert node.rejected("SENTINEL-A") == uids(images)


def test_a_note_of_ours_is_not_believed(node: Reception, images: list[Path], tmp_path: Path) -> None:
    """Our own output never re-enters, not even as a note (invariant 11)."""
    ds = note(images)
    node.receive(*images)
    with node.database.write() as ledger:
        (patient,) = patients.find(ledger, "SENTINEL-A")
        _issue(ledger, patient.row_id, str(ds.SOPInstanceUID))
    node.receive(write_note(ds, tmp_path))
    assert node.rejected("SENTINEL-A") == frozenset()
    assert node.latest() == (ArrivalState.NOT_AN_INPUT, "our own output")


def _issue(ledger: Connection, patient_row: int, sop_instance_uid: str) -> None:
    """Enter an object into the outbox."""
    ledger.execute(
        run.insert().values(
            run_key="k", patient=patient_row, task="t", state=RunState.REPORTED, stat=False, inputs="{}",
            inputs_key="i", remarks="[]", bundle_digest="b", task_digest="t", created_at=NOW, rescues=0,
        )
    )  # fmt: skip
    ledger.execute(
        outbox_object.insert().values(
            sop_instance_uid=sop_instance_uid, run_key="k", position=0, kind="note", sop_class_uid="1.2",
            series_instance_uid="1.2", study_instance_uid="1.2", path="note.dcm", sha256="0",
        )
    )  # fmt: skip


def _without_evidence(ds: Dataset) -> None:
    ds.CurrentRequestedProcedureEvidenceSequence = Sequence()


def _illegal_uid(ds: Dataset) -> None:
    series = ds.CurrentRequestedProcedureEvidenceSequence[0].ReferencedSeriesSequence[0]
    series.ReferencedSOPSequence[0].ReferencedSOPInstanceUID = "1.2.not-a-uid"


def _without_patient(ds: Dataset) -> None:
    ds.PatientID = ""


@pytest.mark.parametrize(
    ("broken", "reason"),
    [
        (_without_evidence, "bad-evidence: a rejection note that names 0 instances"),
        (_illegal_uid, "invalid-uid: ReferencedSOPInstanceUID"),
        (_without_patient, "missing: PatientID"),
    ],
)
@pytest.mark.filterwarnings("ignore:Invalid value for VR UI")
def test_a_broken_note_is_set_aside_with_its_reason(
    node: Reception, images: list[Path], tmp_path: Path, broken: Callable[[Dataset], None], reason: str
) -> None:
    """It rejects nothing, not even the part that could be read."""
    ds = note(images)
    broken(ds)
    node.receive(*images, write_note(ds, tmp_path))
    assert node.latest() == (ArrivalState.SET_ASIDE, reason)
    assert node.rejected("SENTINEL-A") == frozenset()


def test_a_note_under_another_uid_is_set_aside(node: Reception, images: list[Path], tmp_path: Path) -> None:
    """The command and the data set must name the same instance."""
    node.receive(*images)
    node.receive(write_note(note(images), tmp_path), named="1.2.3")
    assert node.latest()[0] == ArrivalState.SET_ASIDE
    assert node.rejected("SENTINEL-A") == frozenset()


def test_a_note_survives_the_pipe(reader: Reader, images: list[Path], tmp_path: Path) -> None:
    """What the child read comes back equal, and names each instance once."""
    ds = note([*images, *images])
    answer = reader.read(write_note(ds, tmp_path), ISSUER)
    assert isinstance(answer, RejectionNote)
    assert answer.sop_instance_uids == tuple(sorted(uids(images)))
    assert answer.patient.key == (ISSUER, "SENTINEL-A")
    assert RejectionNote.from_json(answer.to_json()) == answer


def test_the_log_names_nobody(node: Reception, images: list[Path], tmp_path: Path) -> None:
    """Neither the patient nor an instance is named (invariant 9)."""
    ds = note(images)
    node.receive(*images, write_note(ds, tmp_path))
    text = node.log.getvalue()
    assert "instance.indexed" in text
    assert "SENTINEL" not in text
    assert not any(uid in text for uid in {str(ds.SOPInstanceUID), *uids(images)})

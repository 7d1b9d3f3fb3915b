"""A node without its network: real ledger, reconciler, steps and encoder, a fixed clock and a fake predictor."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime
from typing import TYPE_CHECKING, Any

import numpy as np
from pydicom import dcmread
from pydicom.uid import KeyObjectSelectionDocumentStorage

from dicom_node.ledger import arrivals, cohort, identity_changes, rejections, runs
from dicom_node.ledger.database import Database
from dicom_node.ledger.identity_changes import By
from dicom_node.observe.logs import open_log
from dicom_node.priors.archive import CannotBeAsked
from dicom_node.receive.facts import read_facts
from dicom_node.receive.files import InstanceFiles
from dicom_node.resources import selection_file
from dicom_node.settings import Logging, Settings
from dicom_node.timeline.model import CohortFacts, RunState, Surgery
from dicom_node.timeline.rejection import RejectionNote, RejectionTitle
from dicom_node.timeline.selection import load_selection
from dicom_node.work.engine import ROUTINE, JobKind, JobStatus
from dicom_node.work.folders import Folders
from dicom_node.work.judge import Rules
from dicom_node.work.reconcile import Jobs, Reconciler
from dicom_node.work.steps import RunSteps
from dicom_node.work.tasks import load_tasks
from inference.bundle_parts import SaliencyEvidence, SaliencyMethod
from inference.predictor import Prediction, Scan
from inference.results import ModelCard, Output, PrefixRisk, Result, SaliencyMap
from inference.volume import read_series
from tests.factories.flair import ISSUER

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from pathlib import Path

    from dicom_node.priors.archive import Archive
    from dicom_node.settings import Pacs
    from dicom_node.work.demographics import ArchiveFor
    from dicom_node.work.steps import Predicts
    from dicom_node.work.tasks import ServedTask

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
ANSWER = "recurrence_365d"
NOTE_UID = "2.25.4711"  # of the rejection note
PASSED = SaliencyEvidence(method=SaliencyMethod.OCCLUSION, delivered_by_default=True, evidence="says a test")


@dataclass(frozen=True)
class ContentPredictor:
    """Answers from the content digests alone, in the order of the scans."""

    card: ModelCard

    def predict(
        self, task: str, scans: Sequence[Scan], *, saliency_for: Sequence[int], asked_on: date | None = None
    ) -> Prediction:
        """Return a probability that any change of content or order would change."""
        risks = []
        for count in range(1, len(scans) + 1):
            digest = hashlib.sha256("".join(scan.digest for scan in scans[:count]).encode()).digest()
            risks.append(digest[0] / 255)
        trajectory = tuple(
            PrefixRisk(n_scans=number, acquired=scan.acquired.date(), probability=risk)
            for number, (scan, risk) in enumerate(zip(scans, risks, strict=True), start=1)
        )
        result = Result(
            task=task,
            model=self.card,
            horizon_days=365,
            outputs=(Output(name=ANSWER, probability=risks[-1], raw_probability=risks[-1]),),
            trajectory=trajectory,
            saliency_method="none" if saliency_for else None,
        )
        return Prediction(result=result, saliency=tuple(_map(scans, each % len(scans)) for each in saliency_for))


def _map(scans: Sequence[Scan], index: int) -> SaliencyMap:
    volume = read_series(scans[index].series["FLAIR"])
    return SaliencyMap(
        time_point=index,
        series_instance_uid=volume.series_instance_uid,
        frame_of_reference_uid=volume.frame_of_reference_uid,
        values=np.clip(volume.array / max(float(volume.array.max()), 1.0), 0, 1).astype(np.float32),
        anatomy=volume.array,
        affine=volume.affine,
        slices=volume.slices,
    )


@dataclass
class AtOnce:
    """Does each job the moment it is submitted; deliveries are left lying, for there is no archive here."""

    steps: RunSteps
    done: dict[str, JobStatus] = field(default_factory=dict)

    def submit(self, kind: JobKind, key: str, *, priority: int = ROUTINE) -> None:
        """Infer and encode."""
        if kind is JobKind.RUN and key not in self.done:
            self.steps.infer(key)
            self.steps.encode(key)
        self.done[key] = JobStatus.DONE

    def status(self, keys: Iterable[str]) -> dict[str, JobStatus]:
        """Return what is done."""
        return {key: self.done.get(key, JobStatus.UNKNOWN) for key in keys}

    def rescue(self, executor_id: str) -> list[str]:
        """Nobody dies here."""
        return []

    def retry(self, key: str) -> None:
        """Everything succeeds here."""


def no_archive(pacs: Pacs) -> Archive:
    """Be an archive that answers no questions."""
    raise CannotBeAsked(pacs.name)


class Bench:
    """A node without its network: everything between an arrival and the outbox."""

    def __init__(
        self,
        folder: Path,
        jobs: Jobs | None = None,
        *,
        pacs: Sequence[Mapping[str, Any]] = (),
        archive_for: ArchiveFor = no_archive,
        cohort_known: bool = True,
        database_url: str | None = None,
        task: str = "glioma-recurrence",
        predictor_for: Callable[[ServedTask], Predicts] | None = None,
        saliency: SaliencyEvidence | None = PASSED,
    ) -> None:
        self.settings = Settings.model_validate(
            {
                "node": {"ae_title": "NODE", "data_dir": folder},
                "database": {"url": database_url},
                "receive": {"allow_unknown_peers": True, "quiet_period_s": 60},
                "tasks": [task],
                "pacs": list(pacs),
            }
        )
        self.now = NOW
        self.folders = Folders.under(folder)
        self.folders.prepare()
        self.database = Database(self.settings.ledger_url)
        self.database.migrate()
        self.instances = InstanceFiles(self.folders.instances)
        self.instances.prepare()
        (served,) = load_tasks(self.settings.tasks).values()
        tasks = {served.name: replace(served, saliency=saliency)}  # whatever the shipped bundle says of its own maps
        card = ModelCard(
            name="fake",
            version="1",
            digest=served.bundle_digest,
            training_data="none",
            intended_use="test",
            synthetic=True,
        )
        log = open_log(Logging(level="error", format="json"), b"key")
        self.steps = RunSteps(
            settings=self.settings,
            database=self.database,
            folders=self.folders,
            files=self.instances,
            tasks=tasks,
            predictor_for=predictor_for or (lambda _served: ContentPredictor(card)),
            archive_for=archive_for,
            clock=lambda: self.now,
            log=log,
        )
        self.reconciler = Reconciler(
            rules=Rules(settings=self.settings, selection=load_selection(selection_file(None))),
            database=self.database,
            engine=jobs or AtOnce(self.steps),
            tasks=tasks,
            executor_id="bench",
            clock=lambda: self.now,
            log=log,
        )
        if cohort_known:
            self.import_cohort()

    def import_cohort(self, *patient_ids: str) -> None:
        """Say of patients, PHANTOM-1 where none is named, what the images do not say."""
        facts = CohortFacts(diagnosis="glioma", surgeries=(Surgery(on=date(2025, 3, 3)),))
        with self.database.write() as ledger:
            for patient_id in patient_ids or ("PHANTOM-1",):
                cohort.replace(ledger, ISSUER, patient_id, facts)

    @staticmethod
    def uid(path: Path) -> str:
        """Return the SOP Instance UID of a file."""
        return str(dcmread(path, stop_before_pixels=True).SOPInstanceUID)

    def receive(self, *paths: Path) -> None:
        """Take files in as the listener and the indexer do, all of them in one commit."""
        read = [(path, read_facts(path, default_issuer=ISSUER)) for path in paths]
        new = [self._arrival(path, facts.sop_instance_uid, facts.sop_class_uid) for path, facts in read]
        with self.database.write() as ledger:
            for (_, facts), arrival in zip(read, new, strict=True):
                arrivals.record(ledger, arrival)
                (pending,) = arrivals.pending(ledger, 2)
                arrivals.index(ledger, pending.arrival_id, facts)

    def reject(self, *paths: Path) -> None:
        """Take a rejection note in that names these files' instances, held or not."""
        named = [read_facts(path, default_issuer=ISSUER) for path in paths]
        note = RejectionNote(
            sop_instance_uid=NOTE_UID,
            title=RejectionTitle.QUALITY,
            patient=named[0].patient,
            study_instance_uids=tuple(dict.fromkeys(each.study_instance_uid for each in named)),
            sop_instance_uids=tuple(each.sop_instance_uid for each in named),
        )
        arrival = self._arrival(paths[0], NOTE_UID, KeyObjectSelectionDocumentStorage)
        with self.database.write() as ledger:
            arrivals.record(ledger, arrival)
            (pending,) = arrivals.pending(ledger, 2)
            rejections.enter(ledger, pending.arrival_id, note)

    def merge(self, retired: str, surviving: str) -> None:
        """Say that two PatientIDs are one patient."""
        with self.database.write() as ledger:
            by = By(actor="bench", at=self.now)
            identity_changes.merge(ledger, (ISSUER, retired), (ISSUER, surviving), by)

    def _arrival(self, path: Path, sop_instance_uid: str, sop_class_uid: str) -> arrivals.Arrival:
        return arrivals.Arrival(
            sop_instance_uid=sop_instance_uid,
            sop_class_uid=sop_class_uid,
            transfer_syntax_uid="1.2.840.10008.1.2.1",
            path=self.instances.write((path.read_bytes(),)),
            size_bytes=path.stat().st_size,
            calling_ae_title="SCANNER",
            default_issuer=ISSUER,
            stat=False,
            received_at=self.now,
        )

    def tick(self) -> None:
        """Let the reconciler look."""
        self.reconciler.tick()

    def outcome(self) -> tuple[str, str, tuple[bytes, ...]]:
        """Return inputs, result and the objects' bytes of the only report."""
        with self.database.read() as ledger:
            (run,) = [each for each in runs.of_patient(ledger, 1) if each.state is RunState.REPORTED]
            objects = runs.objects_of(ledger, run.run_key)
        content = tuple((self.folders.outbox / each.path).read_bytes() for each in objects)
        return run.inputs.to_json(), run.result or "", content

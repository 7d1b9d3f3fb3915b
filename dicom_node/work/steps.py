"""The two steps of a run on a worker: infer, then encode. Each may be repeated at any moment and changes nothing twice.

Infer writes the saliency maps durably and then freezes result, version, predecessor and time of issue in one commit;
what was frozen first stays. A model that abstains has a result too, a reason without maps, and it is reported like any
other. Encode asks the archives whom the report has to name and freezes that too; then it makes
the objects from the record alone, writes them into the outbox durably and enters them together with their deliveries
in one commit; from then on the bytes never change. A run that is queued for its next encoding is only encoded again.
"""

from __future__ import annotations

import hashlib
import io
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import date, datetime, time
from typing import TYPE_CHECKING, Final, Protocol

from dicom_node import events
from dicom_node.errors import NodeError
from dicom_node.ledger import arrivals, deliveries, encodings, identity, patients, rejections, runs
from dicom_node.receive.files import write_durably
from dicom_node.timeline.model import RunState
from dicom_node.work import demographics, saliency
from dicom_node.work.encode import EncodedObject, encode_objects
from dicom_node.work.recipients import recipients
from dicom_node.work.report_context import Sources, build_context, header, target
from inference.bundle_files import BundleError
from inference.geometry import GeometryError
from inference.predictor import PredictorError, Scan
from inference.preprocess import PreprocessError, TemplateError
from inference.results import Result, SaliencyMap
from inference.volume import VolumeError
from sr_templates.errors import ReportError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    from sqlalchemy import Connection

    from dicom_node.ledger.database import Database
    from dicom_node.ledger.encodings import Demographics
    from dicom_node.ledger.runs import Run
    from dicom_node.observe.logs import Log
    from dicom_node.receive.files import InstanceFiles
    from dicom_node.settings import Settings
    from dicom_node.timeline.model import InputTimePoint
    from dicom_node.work.demographics import ArchiveFor
    from dicom_node.work.folders import Folders
    from dicom_node.work.tasks import ServedTask
    from inference.predictor import Prediction

EXPECTED_ERRORS: Final = (
    NodeError, BundleError, TemplateError, GeometryError, VolumeError, PreprocessError, PredictorError, ReportError,
)  # fmt: skip


class Predicts(Protocol):
    """What answers a run: the predictor of a bundle."""

    def predict(
        self, task: str, scans: Sequence[Scan], *, saliency_for: Sequence[int], asked_on: date | None = None
    ) -> Prediction:
        """Answer for one time line of scans, oldest first, or say why there is no answer."""
        ...


@dataclass(frozen=True, kw_only=True)
class RunSteps:
    """Infer and encode, for the runs of one worker."""

    settings: Settings
    database: Database
    folders: Folders
    files: InstanceFiles
    tasks: Mapping[str, ServedTask]
    predictor_for: Callable[[ServedTask], Predicts]
    archive_for: ArchiveFor
    clock: Callable[[], datetime]
    log: Log

    def infer(self, run_key: str) -> None:
        """Run the model and freeze its answer.

        Raises:
            NodeError: if the run or its inputs are lost.
        """
        with self._noting_errors(run_key):
            self._infer(run_key)

    def encode(self, run_key: str) -> None:
        """Make the objects of a frozen run and open its deliveries.

        Raises:
            NodeError: if the run is not frozen or an input is lost.
        """
        with self._noting_errors(run_key):
            self._encode(run_key)

    @contextmanager
    def _noting_errors(self, run_key: str) -> Iterator[None]:
        """Keep in the ledger why a step broke, for the engine only knows that it did."""
        try:
            yield
        except Exception as error:
            reason = str(error) if isinstance(error, EXPECTED_ERRORS) else f"unexpected {type(error).__name__}"
            with self.database.write() as ledger:
                runs.note_error(ledger, run_key, reason)
            self.log.failure(events.STEP_FAILED, error, run=run_key[:12])
            raise

    def _infer(self, run_key: str) -> None:
        begun = self._begin(run_key)
        if begun is None:
            return
        run, served = begun
        if run.encoding > 1 or self._answered(run):
            return
        self.log.info(events.STEP_STARTED, step="infer", run=run_key[:12], task=run.task)
        paths = self._paths(run)
        chosen = _to_explain(served, len(run.inputs.time_points))
        scans = [_scan(point, paths) for point in run.inputs.time_points]
        today = self.clock().date()
        prediction = self.predictor_for(served).predict(run.task, scans, saliency_for=chosen, asked_on=today)
        self._keep_saliency(run_key, prediction.saliency)
        with self.database.write() as ledger:
            if self._locked(ledger, run_key).state not in runs.OPEN_STATES:
                return  # taken back meanwhile
            runs.freeze(ledger, run_key, _with_remark(prediction.result, served).to_json(), self.clock())
        self.log.info(events.STEP_FINISHED, step="infer", run=run_key[:12], task=run.task)

    def _encode(self, run_key: str) -> None:
        begun = self._begin(run_key)
        if begun is None:
            return
        run, served = begun
        self.log.info(events.STEP_STARTED, step="encode", run=run_key[:12], task=run.task)
        paths = self._paths(run)
        maps = [SaliencyMap.load(path) for path in self._saliency_files(run_key)]
        sources = self._sources(run, paths)
        shadow = self.settings.mode == "shadow"
        destinations = [] if shadow else recipients(self.settings, served, phantom=sources.phantom)
        named = self._whom_to_name(run, paths, destinations)
        context = build_context(run, replace(sources, demographics=named, template_digest=served.template.digest))
        encoded = encode_objects(context, maps, served.template, paths, saliency=served.task.saliency)
        objects = [self._to_outbox(run, position, each) for position, each in enumerate(encoded)]
        now = self.clock()
        with self.database.write() as ledger:
            if not _as_encoded(ledger, self._locked(ledger, run_key), run, sources):
                return
            runs.record_objects(ledger, run_key, objects, now)
            deliveries.create(ledger, run_key, destinations, now, encoding=run.encoding)
            patients.touch(ledger, run.patient_row)
        self.log.info(events.RUN_FINISHED, run=run_key[:12], task=run.task, version=run.version, objects=len(objects))

    def _whom_to_name(self, run: Run, paths: Mapping[str, Path], destinations: Sequence[str]) -> Demographics:
        """Return what is frozen of patient and order for this encoding, frozen now where it is the first.

        Raises:
            AnotherPatientError: if the archive files the newest study under somebody else.
        """
        if run.encoding in run.encodings:
            return run.encodings[run.encoding].demographics
        series = target(run)
        ours = demographics.of_header(header(paths, series.instances[0].sop_instance_uid), default_issuer=run.issuer)
        archives = [pacs for pacs in self.settings.pacs if pacs.name in destinations]
        with self.database.read() as ledger:
            ids = identity.ids_of(ledger, patients.survivor(ledger, run.patient_row))
        known = self.settings.receive.known_as(ids)
        found = demographics.settle(ours, archives, self.archive_for, series.study_instance_uid, known)
        with self.database.write() as ledger:
            return encodings.freeze(ledger, run.run_key, run.encoding, found).demographics

    def _locked(self, ledger: Connection, run_key: str) -> Run:
        run = runs.locked(ledger, run_key)
        if run is None:
            msg = f"run {run_key[:12]} is not in the ledger"
            raise NodeError(msg)
        return run

    def _begin(self, run_key: str) -> tuple[Run, ServedTask] | None:
        """Note that a run is at work; None if it was taken back or encoded, or if we serve another model than its own.

        One look and one commit: what is taken back in between is never begun.
        """
        with self.database.write() as ledger:
            run = self._locked(ledger, run_key)
            if run.state not in runs.OPEN_STATES or run.encoded_at is not None:
                return None
            served = self.tasks.get(run.task)
            issued = run.encoding > 1  # its answer stands, whatever model came after it
            if served is not None and (issued or served.bundle_digest == run.bundle_digest):
                runs.set_state(ledger, run_key, RunState.RUNNING)
                patients.touch(ledger, run.patient_row)
                return runs.pass_over_withdrawn(ledger, run), served
            runs.set_state(ledger, run_key, RunState.SUPERSEDED, runs.OTHER_MODEL)
            patients.touch(ledger, run.patient_row)
        self.log.info(events.RUN_SUPERSEDED, run=run_key[:12], task=run.task)
        return None

    def _paths(self, run: Run) -> dict[str, Path]:
        wanted = [
            instance.sop_instance_uid
            for point in run.inputs.time_points
            for series in point.series
            for instance in series.instances
        ]
        with self.database.read() as ledger:
            found = arrivals.instance_paths(ledger, wanted)
        if len(found) < len(wanted):
            msg = f"run {run.run_key[:12]}: expected {len(wanted)} input instances, found {len(found)}"
            raise NodeError(msg)
        return {uid: self.files.path(relative) for uid, relative in found.items()}

    def _answered(self, run: Run) -> bool:
        """Say whether a run has its result and, where it speaks of how maps were made, the saliency maps beside it."""
        if run.result is None:
            return False
        return Result.from_json(run.result).saliency_method is None or bool(self._saliency_files(run.run_key))

    def _saliency_files(self, run_key: str) -> list[Path]:
        return sorted(self.folders.results.glob(f"{run_key}-*.npz"))

    def _keep_saliency(self, run_key: str, maps: Sequence[SaliencyMap]) -> None:
        for each in maps:
            buffer = io.BytesIO()
            each.write(buffer)
            write_durably(self.folders.results / f"{run_key}-{each.time_point:02d}.npz", (buffer.getbuffer(),))

    def _sources(self, run: Run, paths: Mapping[str, Path]) -> Sources:
        with self.database.read() as ledger:
            earlier = runs.get(ledger, run.predecessor) if run.predecessor else None
            reports = _reports_there(ledger, run.predecessor)
            phantom = patients.is_phantom(ledger, run.patient_row)
            rejected = rejections.rejected(ledger, run.patient_row)
        return Sources(
            paths=paths,
            ae_title=self.settings.node.ae_title,
            timezone=self.clock().tzinfo,
            phantom=phantom,
            requested_by=run.requested_by,
            predecessor=earlier,
            predecessor_reports=reports,
            rejected=rejected,
        )

    def _to_outbox(self, run: Run, position: int, encoded: EncodedObject) -> runs.OutboxObject:
        """Write an object under a name that no other content has: a worker that wakes up late overwrites nothing."""
        again = f"-{run.encoding}" if run.encoding > 1 else ""
        sha256 = hashlib.sha256(encoded.content).hexdigest()
        name = f"{run.run_key}{again}-{position}-{encoded.kind}-{sha256[:16]}.dcm"
        write_durably(self.folders.outbox / name, (encoded.content,))
        return runs.OutboxObject(
            position=position,
            kind=encoded.kind,
            sop_class_uid=encoded.sop_class_uid,
            sop_instance_uid=encoded.sop_instance_uid,
            series_instance_uid=encoded.series_instance_uid,
            study_instance_uid=encoded.study_instance_uid,
            path=name,
            sha256=sha256,
            encoding=run.encoding,
        )


def _reports_there(ledger: Connection, run_key: str | None) -> list[runs.OutboxObject]:
    """Return a report in each SOP class, as archives hold it or will; nothing while that is still to be made."""
    earlier = runs.get(ledger, run_key) if run_key else None
    if earlier is None:
        return []
    held = deliveries.encoding_held(ledger, earlier.run_key)
    objects = runs.objects_of(ledger, earlier.run_key, held or earlier.encoding)
    return [each for each in objects if each.kind.startswith(deliveries.REPORT)]


def _as_encoded(ledger: Connection, found: Run, run: Run, sources: Sources) -> bool:
    """Say whether a run still is what was encoded of it.

    It is not where it was taken back, as when its patient was split in two, nor where the report that it names was
    withdrawn or is encoded anew: then it stays open, and is encoded again.
    """
    same = (found.result, found.issued_at) == (run.result, run.issued_at)
    before = runs.standing(ledger, found.predecessor)
    follows = before == run.predecessor and _reports_there(ledger, before) == sources.predecessor_reports
    return found.state in runs.OPEN_STATES and same and follows


def _to_explain(served: ServedTask, n_scans: int) -> tuple[int, ...]:
    """Return which scans the task wants explained, as `Predictor.predict` counts them; none where no map is given."""
    rule = served.task.saliency
    if not saliency.is_delivered(rule, served.saliency):
        return ()
    return (-1,) if rule.time_points == "newest" else tuple(range(n_scans))


def _with_remark(result: Result, served: ServedTask) -> Result:
    """Return an answer that says why it has no map, or one without proof; where there is no answer, nobody asks."""
    said = None if result.abstention is not None else saliency.remark(served.task.saliency, served.saliency)
    return result if said is None else replace(result, flags=(*result.flags, said))


def _scan(point: InputTimePoint, paths: Mapping[str, Path]) -> Scan:
    """Turn a time point of a run into what the predictor reads; its digest names the content, not the files."""
    digest = hashlib.sha256()
    for series in point.series:
        digest.update(series.role.value.encode())
        for instance in series.instances:
            digest.update(instance.content_digest.encode())
    return Scan(
        acquired=datetime.combine(point.acquired_on, point.acquired_time or time()),
        series={
            series.role.value: tuple(paths[instance.sop_instance_uid] for instance in series.instances)
            for series in point.series
        },
        digest=digest.hexdigest(),
    )

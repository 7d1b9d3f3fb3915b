"""The tables. SQLAlchemy 2 Core; the same on SQLite and PostgreSQL. Changed only together with a migration."""

from __future__ import annotations

from datetime import UTC, datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Final

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Date,
    DateTime,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    Time,
    UniqueConstraint,
    false,
)
from sqlalchemy.types import TypeDecorator

if TYPE_CHECKING:
    from sqlalchemy import Dialect


class ArrivalState(StrEnum):
    """What became of the bytes of one received file."""

    RECEIVED = "received"  # durable, not yet read
    INDEXED = "indexed"  # its facts are in `instance`
    DUPLICATE = "duplicate"  # same SOP Instance UID, same content: the first copy stays
    CONFLICT = "conflict"  # same SOP Instance UID, other content or patient: kept aside, the case is held
    NOT_AN_INPUT = "not-an-input"  # SR, key objects, our own output: kept, never worked on
    SET_ASIDE = "set-aside"  # unreadable or refused, with its reason
    AGED_OUT = "aged-out"  # its facts stay in `instance`; its bytes were deleted, and can be fetched again
    LOST = "lost"  # its bytes were gone or cut short at a start of the node; as aged out, but nobody meant it


GONE: Final = (ArrivalState.AGED_OUT, ArrivalState.LOST)  # states of files whose bytes are not here


class CaseState(StrEnum):
    """The one visible state of a case (DESIGN 3)."""

    INELIGIBLE = "ineligible"
    WAITING = "waiting"
    DUE = "due"
    RUNNING = "running"
    REPORTED = "reported"
    HELD = "held"
    FAILED = "failed"
    ENDED = "ended"
    WITHDRAWN = "withdrawn"


class DeliveryState(StrEnum):
    """Where a report stands with one destination."""

    PENDING = "pending"
    SENT = "sent"
    COMMITTED = "committed"  # the archive took responsibility for every object (storage commitment)
    RETRYING = "retrying"
    DEAD = "dead"
    VOID = "void"  # withdrawn before anything was sent: nothing will be


class LookupState(StrEnum):
    """How far a question to an archive about a patient's older studies is."""

    OPEN = "open"
    DONE = "done"
    FAILED = "failed"  # given up; asked again when something new is known or the interval is over


class PriorState(StrEnum):
    """What became of a study or series that an archive told us of."""

    HELD = "held"  # we have it already
    WANTED = "wanted"  # to be fetched
    FETCHED = "fetched"
    REFUSED = "refused"  # by a rule or because it is another patient's, with its reason
    FAILED = "failed"  # tried in every way and given up


class UtcDateTime(TypeDecorator[datetime]):
    """A tz-aware point in time, kept in UTC (SQLite forgets zones)."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:  # noqa: ARG002 - SQLAlchemy's signature
        """Convert to UTC, refusing a naive time."""
        if value is None:
            return None
        if value.tzinfo is None:
            msg = "a point in time needs a zone, found a naive datetime"
            raise ValueError(msg)
        return value.astimezone(UTC)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:  # noqa: ARG002 - SQLAlchemy's signature
        """Give the zone back."""
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


UID = String(64)
metadata = MetaData()

patient = Table(
    "patient",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("issuer", String(64), nullable=False),
    Column("patient_id", String(64), nullable=False),
    Column("revision", Integer, nullable=False),  # grows with every new fact
    Column("decided_revision", Integer, nullable=False),  # the last one that was decided on
    Column("next_check_at", UtcDateTime),  # decide again then, even if nothing is new
    UniqueConstraint("issuer", "patient_id"),
)

arrival = Table(
    "arrival",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("sop_instance_uid", UID, nullable=False, index=True),  # as the C-STORE command named it
    Column("sop_class_uid", UID, nullable=False),
    Column("transfer_syntax_uid", UID, nullable=False),
    Column("path", String(255), nullable=False, unique=True),  # relative to the instance folder, never from the wire
    Column("size_bytes", BigInteger, nullable=False),
    Column("calling_ae_title", String(16), nullable=False),
    Column("default_issuer", String(64), nullable=False),
    Column("stat", Boolean, nullable=False),
    Column("received_at", UtcDateTime, nullable=False),
    Column("state", String(16), nullable=False, index=True),
    Column("reason", Text),
    Column("tries", Integer, nullable=False),
    Column("patient", ForeignKey("patient.id"), index=True),
    Column("study_instance_uid", UID),
    Column("fetched_from", String(32)),  # the archive we fetched it from; null: it was sent to us
)

instance = Table(
    "instance",
    metadata,
    Column("sop_instance_uid", UID, primary_key=True),
    Column("arrival", ForeignKey("arrival.id"), nullable=False),
    Column("patient", ForeignKey("patient.id"), nullable=False, index=True),
    Column("study_instance_uid", UID, nullable=False, index=True),
    Column("series_instance_uid", UID, nullable=False),
    Column("content_digest", String(80), nullable=False),
    Column("phantom", Boolean, nullable=False),  # marked as a phantom (Quality Control Subject)
    Column("facts", Text, nullable=False),  # InstanceFacts as canonical JSON
)

study = Table(
    "study",
    metadata,
    Column("study_instance_uid", UID, primary_key=True),
    Column("patient", ForeignKey("patient.id"), nullable=False, index=True),
    Column("burst_started_at", UtcDateTime, nullable=False),  # when instances began to arrive without a long pause
    Column("last_received_at", UtcDateTime, nullable=False),
    Column("stat", Boolean, nullable=False),
)

patient_alias = Table(
    "patient_alias",
    metadata,
    Column("issuer", String(64), primary_key=True),
    Column("patient_id", String(64), primary_key=True),
    Column("patient", ForeignKey("patient.id"), nullable=False, index=True),  # whose ID this also is
    Column("since", UtcDateTime, nullable=False),
    Column("source", String(64), nullable=False),  # who said so
)

study_owner = Table(
    "study_owner",
    metadata,
    Column("study_instance_uid", UID, primary_key=True),  # given to a patient by hand, whatever ID it carries
    Column("patient", ForeignKey("patient.id"), nullable=False, index=True),
    Column("since", UtcDateTime, nullable=False),
    Column("source", String(64), nullable=False),
)

accepted_value = Table(
    "accepted_value",
    metadata,
    Column("patient", ForeignKey("patient.id"), primary_key=True),
    Column("field", String(32), primary_key=True),  # PatientName, PatientBirthDate, PatientSex
    Column("value", String(512), primary_key=True),
    Column("since", UtcDateTime, nullable=False),
    Column("source", String(64), nullable=False),
)

patient_statement = Table(
    "patient_statement",
    metadata,
    Column("issuer", String(64), primary_key=True),
    Column("patient_id", String(64), primary_key=True),
    Column("name", String(512), nullable=False),  # what a registry says of this ID today, as in DICOM; empty: nothing
    Column("birth_date", String(8), nullable=False),
    Column("sex", String(16), nullable=False),
    Column("since", UtcDateTime, nullable=False),
    Column("source", String(64), nullable=False),
)

rejected_instance = Table(
    "rejected_instance",
    metadata,
    Column("sop_instance_uid", UID, primary_key=True),
    Column("note_sop_instance_uid", UID, primary_key=True),  # the rejection note (IOCM key object selection)
    Column("patient", ForeignKey("patient.id"), nullable=False, index=True),  # whom the note is about
    Column("code", String(16), nullable=False),  # document title: 113001, 113037, 113038 (DCM)
    Column("noted_at", UtcDateTime, nullable=False),
)

case_order = Table(
    "case_order",
    metadata,
    Column("patient", ForeignKey("patient.id"), primary_key=True),
    Column("task", String(64), primary_key=True),
    Column("kind", String(8), primary_key=True),  # hold, force
    Column("given_at", UtcDateTime, nullable=False),
    Column("actor", String(64), nullable=False),
    Column("reason", Text, nullable=False),
)

prior_lookup = Table(
    "prior_lookup",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("patient", ForeignKey("patient.id"), nullable=False, index=True),
    Column("pacs", String(32), nullable=False),
    Column("state", String(8), nullable=False, index=True),
    Column("opened_at", UtcDateTime, nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("next_attempt_at", UtcDateTime, nullable=False),
    Column("finished_at", UtcDateTime),
    Column("held", Text, nullable=False),  # JSON list of the Study Instance UIDs we held when it was opened
    Column("found", Integer, nullable=False),  # studies of this patient the archive told us of
    Column("wanted", Integer, nullable=False),  # of these, to be fetched
    Column("refused", Integer, nullable=False),
    Column("error", Text),
)

prior_study = Table(
    "prior_study",
    metadata,
    Column("pacs", String(32), primary_key=True),
    Column("study_instance_uid", UID, primary_key=True),
    Column("patient", ForeignKey("patient.id"), nullable=False, index=True),
    Column("lookup", ForeignKey("prior_lookup.id"), nullable=False),  # the latest that found it
    Column("day", Date),
    Column("state", String(8), nullable=False),
    Column("reason", Text, nullable=False),
)

prior_series = Table(
    "prior_series",
    metadata,
    Column("pacs", String(32), primary_key=True),
    Column("series_instance_uid", UID, primary_key=True),
    Column("study_instance_uid", UID, nullable=False, index=True),
    Column("patient", ForeignKey("patient.id"), nullable=False, index=True),
    Column("lookup", ForeignKey("prior_lookup.id"), nullable=False),
    Column("instances", Integer),  # how many the archive says it holds; null: it does not say
    Column("state", String(8), nullable=False, index=True),
    Column("reason", Text, nullable=False),
    Column("method", String(16)),  # that fetched it
    Column("attempts", Integer, nullable=False),
    Column("next_attempt_at", UtcDateTime, nullable=False),
    Column("first_attempt_at", UtcDateTime),  # since it was last wanted
    Column("started_at", UtcDateTime),  # the latest attempt
    Column("finished_at", UtcDateTime),
    Column("fetched", Integer, nullable=False),  # instances that came
)

cohort_fact = Table(
    "cohort_fact",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("issuer", String(64), nullable=False),
    Column("patient_id", String(64), nullable=False),
    Column("kind", String(16), nullable=False),  # diagnosis, surgery, radiotherapy, event, birth-date
    Column("day", Date),
    Column("time", Time),
    Column("value", String(128)),
    Index("cohort_fact_patient", "issuer", "patient_id"),
)

audit = Table(
    "audit",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("at", UtcDateTime, nullable=False),
    Column("actor", String(64), nullable=False),
    Column("action", String(64), nullable=False),
    Column("subject", String(160), nullable=False),
    Column("details", Text, nullable=False),
)

case = Table(
    "task_case",
    metadata,
    Column("patient", ForeignKey("patient.id"), primary_key=True),
    Column("task", String(64), primary_key=True),
    Column("state", String(16), nullable=False),
    Column("reasons", Text, nullable=False),  # JSON list of {code, text}
    Column("decided_at", UtcDateTime, nullable=False),
    Column("run_key", String(64)),
)

run = Table(
    "run",
    metadata,
    Column("run_key", String(64), primary_key=True),
    Column("patient", ForeignKey("patient.id"), nullable=False, index=True),
    Column("task", String(64), nullable=False),
    Column("state", String(16), nullable=False, index=True),  # timeline.model.RunState
    Column("stat", Boolean, nullable=False),
    Column("inputs", Text, nullable=False),  # timeline.model.Inputs as canonical JSON
    Column("inputs_key", String(64), nullable=False),
    Column("remarks", Text, nullable=False),  # JSON list of texts for the report
    Column("bundle_digest", String(80), nullable=False),
    Column("task_digest", String(80), nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
    # frozen together, once, before anything is encoded:
    Column("result", Text),
    Column("version", Integer),
    Column("predecessor", ForeignKey("run.run_key")),
    Column("issued_at", UtcDateTime),
    Column("encoded_at", UtcDateTime),
    Column("error", Text),
    Column("rescues", Integer, nullable=False),
    Column("encoding", Integer, nullable=False, server_default="1"),  # grows when the patient was corrected meanwhile
    Column("requested_by", String(64)),  # the person who ordered the run; null: nobody did
    Column("demographics", Text),  # of the study the report stands in, as the archive told them before encoding
)

outbox_object = Table(
    "outbox_object",
    metadata,
    Column("sop_instance_uid", UID, primary_key=True),
    Column("run_key", ForeignKey("run.run_key"), nullable=False, index=True),
    Column("position", Integer, nullable=False),  # the order of sending
    Column("kind", String(16), nullable=False),  # saliency, summary, report, ..., or rejection-note (encoding 0)
    Column("sop_class_uid", UID, nullable=False),
    Column("series_instance_uid", UID, nullable=False),
    Column("study_instance_uid", UID, nullable=False),
    Column("path", String(255), nullable=False),  # relative to the outbox folder
    Column("sha256", String(64), nullable=False),
    Column("encoding", Integer, nullable=False, server_default="1"),
)

delivery = Table(
    "delivery",
    metadata,
    Column("run_key", ForeignKey("run.run_key"), primary_key=True),
    Column("destination", String(32), primary_key=True),
    Column("state", String(16), nullable=False, index=True),
    Column("attempts", Integer, nullable=False),
    Column("first_attempt_at", UtcDateTime),
    Column("next_attempt_at", UtcDateTime, nullable=False),
    Column("sent_at", UtcDateTime),
    Column("error", Text),
    Column("encoding", Integer, nullable=False, server_default="1"),  # the one to send, or that was sent
    Column("report_class", UID),  # of the SR classes offered, the one that this destination takes
    Column("note", UID),  # SOP Instance UID of the rejection note that is sent in place of a withdrawn report
    Column(
        "to_commit", Boolean, nullable=False, server_default=false()
    ),  # ask for storage commitment, again if need be
    Column("commit_requests", Integer, nullable=False, server_default="0"),
    Column("committed_at", UtcDateTime),
)

handed_over = Table(
    "handed_over",
    metadata,
    Column("run_key", ForeignKey("run.run_key"), primary_key=True),
    Column("destination", String(32), primary_key=True),
    Column("sop_instance_uid", ForeignKey("outbox_object.sop_instance_uid"), primary_key=True),
    Column("attempt", Integer),  # that is sending it, so that it may be there or not; null: it is there
)

commitment = Table(
    "commitment",
    metadata,
    Column("transaction_uid", UID, primary_key=True),
    Column("run_key", ForeignKey("run.run_key"), nullable=False, index=True),
    Column("destination", String(32), nullable=False),
    Column("instances", Text, nullable=False),  # JSON list of the SOP Instance UIDs it is about
    Column("requested_at", UtcDateTime, nullable=False),
    Column("answered_at", UtcDateTime),
)

withdrawal = Table(
    "withdrawal",
    metadata,
    Column("run_key", ForeignKey("run.run_key"), primary_key=True),
    Column("title", String(16), nullable=False),  # document title of the rejection notes: 113001, 113037 (DCM)
    Column("reason", Text, nullable=False),
    Column("actor", String(64), nullable=False),
    Column("withdrawn_at", UtcDateTime, nullable=False),
)

executor = Table(
    "executor",
    metadata,
    Column("executor_id", String(128), primary_key=True),
    Column("last_seen", UtcDateTime, nullable=False),
)

refusal = Table(
    "refusal",
    metadata,
    Column("calling_ae_title", String(16), primary_key=True),
    Column("address", String(64), primary_key=True),
    Column("reason", String(64), primary_key=True),
    Column("count", Integer, nullable=False),
    Column("last_at", UtcDateTime, nullable=False),
)

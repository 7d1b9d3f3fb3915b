"""An archive as we see it when we ask: what it says it holds, and a way to have it sent.

Every answer is a claim of a peer: patients are compared with the one asked for before anything is believed
(`dicom_node.priors.plan`), and what is fetched is filed under what its own header says.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import date
from typing import Protocol, TypeAlias

from dicom_node.errors import PeerError
from dicom_node.timeline.model import PatientFacts


class CannotBeAsked(PeerError):  # noqa: N818 - the name says what it is
    """The archive is there, but answers no questions of this kind; asking again will not help."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundStudy:
    """A study an archive says it holds. `patient.issuer` is empty where the archive names none."""

    study_instance_uid: str
    patient: PatientFacts
    day: date | None = None
    description: str = ""
    accession_number: str = ""
    modalities: tuple[str, ...] = ()  # empty: the archive does not say
    instances: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundSeries:
    """A series an archive says it holds."""

    study_instance_uid: str
    series_instance_uid: str
    modality: str = ""
    description: str = ""
    instances: int | None = None


Intake: TypeAlias = Callable[[bytes], None]  # takes one Part 10 file durably


@dataclass(frozen=True, slots=True, kw_only=True)
class Fetched:
    """What came of fetching one series; `refusals` say why single instances did not come."""

    instances: int
    refusals: tuple[str, ...] = field(default=())


class Tally:
    """Hands the instances of one retrieval to the intake and counts them; a bad one does not stop the next."""

    def __init__(self, intake: Intake) -> None:
        self._intake = intake
        self.taken = 0
        self.refusals: list[str] = []

    def take(self, content: bytes) -> bool:
        """Take one Part 10 file; return whether it is durable.

        Raises:
            OSError: if the disk says no; SQLAlchemy's errors if the ledger does.
        """
        try:
            self._intake(content)
        except PeerError as error:
            self.refusals.append(str(error))
            return False
        self.taken += 1
        return True

    def fetched(self) -> Fetched:
        """Return what came."""
        return Fetched(instances=self.taken, refusals=tuple(self.refusals))


class Archive(Protocol):
    """Answers questions.

    Every method raises `UpstreamError` when the archive is away, and `CannotBeAsked` when it answers no such question.
    """

    def find_studies(self, patient_id: str) -> list[FoundStudy]:
        """Return the studies under a PatientID, as answered: not yet compared with what was asked."""
        ...

    def find_study(self, study_instance_uid: str) -> FoundStudy | None:
        """Return one study, None if the archive does not hold it."""
        ...

    def find_series(self, study_instance_uid: str) -> list[FoundSeries]:
        """Return the series of a study."""
        ...


class Retriever(Protocol):
    """Has a series sent to us in one way; raises like `Archive`."""

    def fetch(self, series: FoundSeries, intake: Intake) -> Fetched:
        """Fetch one series; instances that come through the listener instead (C-MOVE) do not pass `intake`."""
        ...

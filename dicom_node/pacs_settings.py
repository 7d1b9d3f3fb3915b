"""What the configuration says of an archive: how to reach it, what it gets, and which older studies it is asked for.

User name and password never stand in it: they come from the environment, in variables that it names.
"""

from __future__ import annotations

import os
from datetime import datetime, time
from typing import TYPE_CHECKING, Annotated, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from dicom_node.addresses import AeTitle, Port
from dicom_node.documents import Document, Regex
from dicom_node.tls_settings import ArchiveTls

if TYPE_CHECKING:
    from pathlib import Path


class Dimse(Document):
    """A PACS reached by C-STORE, C-FIND, C-MOVE and C-GET."""

    ae_title: AeTitle
    host: str
    port: Port
    timeout_s: float = Field(default=30, gt=0)
    tls: ArchiveTls | None = None


class HttpArchive(Document):
    """A PACS reached over HTTP; user name and password come from the named environment variables."""

    url: str = Field(pattern=r"^https?://[^@]+$")  # nobody's name and password: they come from the environment
    timeout_s: float = Field(default=60, gt=0)
    username_env: str | None = None
    password_env: str | None = None

    def credentials(self) -> tuple[str | None, str | None]:
        """Return user name and password from the environment, None where no variable is named."""
        return (
            os.environ.get(self.username_env) if self.username_env else None,
            os.environ.get(self.password_env) if self.password_env else None,
        )


class Orthanc(HttpArchive):
    """An Orthanc reached by its own REST API."""


class DicomWeb(HttpArchive):
    """A PACS reached by DICOMweb (QIDO-RS, WADO-RS, STOW-RS): `url` is the root of its services."""


class Window(Document):
    """A time of day in which something may be done, on the site's clock; it may reach over midnight."""

    start: time
    end: time

    def contains(self, moment: datetime) -> bool:
        """Say whether a moment lies in it, the start included, the end not."""
        clock = moment.time().replace(tzinfo=None)
        if self.start <= self.end:
            return self.start <= clock < self.end
        return clock >= self.start or clock < self.end


RetrieveMethod = Literal["c-move", "c-get", "dicomweb", "orthanc"]


class Priors(Document):
    """How older studies are fetched from an archive: by which methods in order, which of them, and how gently."""

    methods: tuple[RetrieveMethod, ...] = ()  # none: this archive is never asked for priors
    max_studies: int = Field(default=12, ge=1, le=100)  # per patient, the newest first
    max_age_days: int | None = Field(default=3650, ge=1)
    modalities: tuple[str, ...] = ("MR",)  # of series; what the archive does not tell is not filtered
    study_description: Regex | None = None  # what a told Study Description must match, case ignored
    series_description: Regex | None = None  # the same for series
    max_concurrent: int = Field(default=1, ge=1, le=16)  # series fetched at a time
    per_hour: int = Field(default=240, ge=1)  # series fetched within any hour
    window: Window | None = None  # when to fetch; none: always
    ask_again_after_s: float = Field(default=21600, gt=0)  # while a case waits and nothing new was heard


class StorageCommitment(Document):
    """Whether an archive is asked to commit itself to what it was sent, how long its answer may take, how often."""

    enabled: bool = False
    wait_h: float = Field(default=24, gt=0)  # archives commit at once, at night, or never
    most_requests: int = Field(default=7, ge=1, le=100)


def _commitment(value: object) -> object:
    """Read a plain yes or no as `enabled`."""
    return {"enabled": value} if isinstance(value, bool) else value


def _priors(value: object) -> object:
    """Read a plain list as the list of methods."""
    return {"methods": value} if isinstance(value, list | tuple) else value


class Retry(Document):
    """How often an undelivered report is tried again: doubling waits from first to longest, until it is dead."""

    first_s: float = Field(default=5, gt=0)
    longest_s: float = Field(default=900, gt=0)
    give_up_after_h: float = Field(default=72, gt=0)


class Pacs(Document):
    """One archive: how to reach it and what it is for."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9-]{0,31}$")
    dimse: Dimse | None = None
    orthanc: Orthanc | None = None
    dicomweb: DicomWeb | None = None
    default_issuer: str | None = None
    results: bool = True
    priors: Annotated[Priors, BeforeValidator(_priors)] = Priors()
    storage_commitment: Annotated[StorageCommitment, BeforeValidator(_commitment)] = StorageCommitment()
    compress_saliency: bool = False  # JPEG-LS lossless where the archive accepts it
    allow_unvalidated: bool = False
    retry: Retry = Retry()

    def relative_to(self, folder: Path) -> Pacs:
        """Return it with the paths of its files absolute, taken from a folder."""
        if self.dimse is None or self.dimse.tls is None:
            return self
        tls = self.dimse.tls.relative_to(folder)
        return self.model_copy(update={"dimse": self.dimse.model_copy(update={"tls": tls})})

    @model_validator(mode="after")
    def _ways_in(self) -> Self:
        if self.dimse is None and self.orthanc is None and self.dicomweb is None:
            msg = "give at least one of dimse, dicomweb, orthanc: the ways to reach this archive"
            raise ValueError(msg)
        if self.storage_commitment.enabled and self.dimse is None:
            msg = "storage_commitment: needs the section dimse; it is a DIMSE service"
            raise ValueError(msg)
        return self

    @model_validator(mode="after")
    def _ways_to_fetch(self) -> Self:
        way = {"c-move": "dimse", "c-get": "dimse", "dicomweb": "dicomweb", "orthanc": "orthanc"}
        for method in self.priors.methods:
            if getattr(self, way[method]) is None:
                msg = f"priors: method {method} needs the section {way[method]}"
                raise ValueError(msg)
        if self.priors.methods and self.default_issuer is None:
            msg = "priors: needs default_issuer, the issuer of the PatientIDs that this archive names none for"
            raise ValueError(msg)
        return self

"""What the rules say of every shared real series, beside what a reader said before they were asked.

`make selection-report` prints it; DICOM_NODE_REAL_DATA names the folder with the archives.
"""

from __future__ import annotations

import os
import sys
import tarfile
import warnings
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import click
import pydicom
from pydantic import Field
from pydicom.uid import EnhancedMRImageStorage, MRImageStorage

from dicom_node.documents import Document, load_document
from dicom_node.receive.attributes import read_attributes
from dicom_node.resources import selection_file
from dicom_node.timeline.model import InstanceFacts, PatientFacts
from dicom_node.timeline.roles import classify_series
from dicom_node.timeline.selection import load_selection

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pydicom.dataset import Dataset

    from dicom_node.timeline.selection import Selection

TABLE = Path(__file__).with_name("expected.yaml")
FOLDERS = ("dicom", "dicom_headers_only", "dicom_vendor_headers_noise_pixels")
NO_MR_IMAGE = "not an MR image"


class Judgement(Document):
    """What a reader says of some series of an archive, and why the rules may say something else."""

    archive: str
    series: Annotated[tuple[str, ...], Field(min_length=1)]
    expected: str
    why: str
    disagreement: str = ""  # why the rules' other answer is right, or tolerable


class Table(Document):
    """All judgements, and how many series the rules agreed on when this was last looked at."""

    agreed: int
    series: tuple[Judgement, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One series: what was expected, what was found, and by which rule."""

    archive: str
    series: str
    expected: str
    found: str
    rule: str
    explained: str

    @property
    def agrees(self) -> bool:
        """Whether reader and rules say the same."""
        return self.expected == self.found


def rows(real_data: Path, selection: Selection) -> list[Row]:
    """Ask the rules about every series of every archive.

    Raises:
        KeyError: if a series of the archives is missing in the table.
    """
    judged = {(each.archive, name): each for each in load_table().series for name in each.series}
    found = []
    for archive in sorted(path for folder in FOLDERS for path in (real_data / folder).glob("*.tar.xz")):
        name = archive.name.removesuffix(".tar.xz")
        for series, datasets in _series_of(archive).items():
            judgement = judged.pop((name, series))
            with warnings.catch_warnings():  # real headers hold values longer than they may be
                warnings.simplefilter("ignore")
                what, rule = _ask(datasets, selection)
            found.append(
                Row(
                    archive=name,
                    series=series,
                    expected=judgement.expected,
                    found=what,
                    rule=rule,
                    explained=judgement.disagreement,
                )
            )
    if judged:
        raise KeyError(*judged)
    return found


def load_table() -> Table:
    """Read the judgements."""
    return load_document(TABLE, Table)


def _series_of(archive: Path) -> dict[str, list[Dataset]]:
    """Return the headers of an archive by SESSION/SERIES NUMBER, or by number where it has one session."""
    headers = list(_headers(archive))
    sessions = {session for session, _ in headers}
    series = defaultdict(list)
    for session, ds in headers:
        number = str(int(ds.SeriesNumber))
        series[f"{session}/{number}" if len(sessions) > 1 else number].append(ds)
    return series


def _headers(archive: Path) -> Iterator[tuple[str, Dataset]]:
    with tarfile.open(archive, "r:xz") as tar:
        for member in tar:
            file = tar.extractfile(member)
            if file is not None:
                yield Path(member.name).parent.name, pydicom.dcmread(file, stop_before_pixels=True, force=True)


def _ask(datasets: list[Dataset], selection: Selection) -> tuple[str, str]:
    if not {str(ds.SOPClassUID) for ds in datasets} <= {MRImageStorage, EnhancedMRImageStorage}:
        return NO_MR_IMAGE, "(SOP class)"
    verdict = classify_series([_facts(ds) for ds in datasets], selection)
    return verdict.name, verdict.rule


def _facts(ds: Dataset) -> InstanceFacts:
    """Return what the rules look at; some of the archives hold no pixels, so the whole reader cannot be asked."""
    return InstanceFacts(
        sop_class_uid=str(ds.SOPClassUID),
        sop_instance_uid=str(ds.SOPInstanceUID),
        series_instance_uid=str(ds.SeriesInstanceUID),
        study_instance_uid=str(ds.StudyInstanceUID),
        content_digest="",
        patient=PatientFacts(issuer="", patient_id=""),
        attributes=read_attributes(ds),
    )


def main() -> None:
    """Print every series and the score."""
    folder = os.environ.get("DICOM_NODE_REAL_DATA")
    if not folder:
        sys.exit("DICOM_NODE_REAL_DATA is not set: no real images on this machine")
    found = rows(Path(folder), load_selection(selection_file(None)))
    widths = (36, 8, 17, 17, 26)
    for row in found:
        verdict = "agree" if row.agrees else f"DISAGREE: {row.explained or 'not explained'}"
        cells = (row.archive, row.series, row.expected, row.found, row.rule)
        click.echo(" ".join((*(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)), verdict)))
    click.echo(f"{sum(row.agrees for row in found)} of {len(found)} series as the reader said")


if __name__ == "__main__":
    main()

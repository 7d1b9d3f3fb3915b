"""A cohort table made into a cohort: scans chosen, prepared, chosen anew without those that failed, and written.

Beside the cohort lie `scans.csv` (every line of the table: what became of it, and which volume came from which bytes),
`patients.csv` and `exclusions.csv` (who and what was left out, and why), `about.json` (what it was made with) and
`prepared/` (the volumes one by one, in the node's cache format; needed to go on after an interruption, not to train).
"""

from __future__ import annotations

import csv
import hashlib
from collections import defaultdict
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from inference.preprocess import PREPROCESSING_VERSION, Preprocessed
from inference.training.cohort import Cohort, PatientScans, write_cohort
from inference.training.eligibility import choose_all
from inference.training.exclusions import INCLUDED, write_exclusions
from inference.training.prepare import Job, Outcome, loaded_template, prepare_scans
from inference.training.provenance import Provenance, TemplateUsed, write_provenance

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from pathlib import Path

    from inference.training.cohort_table import CohortTable
    from inference.training.eligibility import Chosen, Rule
    from inference.training.prepare import Space

VOLUMES = "prepared"
_COLUMNS = (
    "line",
    "patient",
    "scan_date",
    "role",
    "path",
    "status",
    "place",
    "source_digest",
    "volume",
    "volume_digest",
    "coverage",
    "overlap",
    "mutual_information",
    "flags",
    "failure",
)


class NoPatientError(ValueError):
    """Nobody is left to make a cohort of; the reasons lie beside it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ScanRecord:
    """One line of the table and what became of it; `place` counts the cohort's scans, None where it is not in it."""

    line: int
    patient: str
    acquired: str
    path: str
    status: str  # "included", or the ground on which it was left out
    place: int | None
    outcome: Outcome | None  # None: nobody tried to prepare it


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class PreparedCohort:
    """What a table became: the cohort, the choice for every patient, and a record of every scan."""

    cohort: Cohort
    chosen: tuple[Chosen, ...]
    records: tuple[ScanRecord, ...]


def prepare_table(
    table: CohortTable,
    out: Path,
    *,
    rule: Rule,
    space: Space,
    workers: int = 2,
    progress: Callable[[int, int], None] = lambda _done, _all: None,
) -> PreparedCohort:
    """Prepare all scans that the rule shows to a model, and write them as a cohort into `out`.

    `progress` is called with the numbers of scans done and known to be needed.

    Raises:
        NoPatientError: if nobody is left; the records are written all the same.
        TemplateError: if the template cannot be used.
        OSError: if the disk says no.
    """
    outcomes: dict[int, Outcome] = {}
    chosen = _choose(table, rule, outcomes)
    while jobs := _jobs(chosen, rule, outcomes):
        total = len(outcomes) + len(jobs)
        progress(len(outcomes), total)
        for outcome in prepare_scans(jobs, space, out / VOLUMES, workers=workers):
            outcomes[outcome.line] = outcome
            progress(len(outcomes), total)
        outcomes |= _same_images(outcomes.values())
        chosen = _choose(table, rule, outcomes)
    included = [each for each in chosen if not each.excluded]
    records = _records(chosen, rule, outcomes)
    _write_records(out, chosen, records, rule)
    write_provenance(out, _provenance(table, rule, space))
    if not included:
        raise NoPatientError(f"{out}: expected at least one patient to be left, found none; see patients.csv")
    cohort = write_cohort(out, _patient_scans(included, outcomes, out / VOLUMES))
    return PreparedCohort(cohort=cohort, chosen=chosen, records=records)


def _choose(table: CohortTable, rule: Rule, outcomes: dict[int, Outcome]) -> tuple[Chosen, ...]:
    """Return the choice for every patient without the scans that failed."""
    failed = {line for line, outcome in outcomes.items() if outcome.failure}
    return choose_all(table.patients, rule, {each.patient: failed for each in table.patients})


def _jobs(chosen: Sequence[Chosen], rule: Rule, outcomes: dict[int, Outcome]) -> list[Job]:
    """Return the chosen scans that nobody has tried yet."""
    scans = [each.patient.scans[place] for each in chosen for place in each.shown]
    return [Job(line=scan.line, path=scan.series[rule.role]) for scan in scans if scan.line not in outcomes]


def _same_images(outcomes: Iterable[Outcome]) -> dict[int, Outcome]:
    """Return a failure for every scan whose volume is another line's too: which line is right, nobody can know."""
    by_volume: dict[str, list[Outcome]] = defaultdict(list)
    for each in outcomes:
        if each.volume_digest:
            by_volume[each.volume_digest].append(each)
    return {
        each.line: replace(each, failure=f"the same image as line {', '.join(_others(each, alike))}")
        for alike in by_volume.values()
        if len(alike) > 1
        for each in alike
    }


def _others(one: Outcome, alike: Sequence[Outcome]) -> list[str]:
    """Return the other lines."""
    return [str(each.line) for each in sorted(alike, key=lambda each: each.line) if each.line != one.line]


def _patient_scans(included: Sequence[Chosen], outcomes: dict[int, Outcome], volumes: Path) -> Iterator[PatientScans]:
    """Yield the included patients with their volumes (T, Z, Y, X), days counted from the newest scan shown."""
    for each in included:
        scans = [each.patient.scans[place] for place in each.shown]
        newest = scans[-1].acquired
        event = each.patient.event
        yield PatientScans(
            patient=each.patient.patient,
            volumes=np.stack([Preprocessed.load(volumes / f"{outcomes[scan.line].key}.npz").array for scan in scans]),
            days=tuple((scan.acquired - newest).days for scan in scans),
            event_day=None if event is None else (event - newest).days,
            follow_up_day=(each.patient.last_follow_up - newest).days,
            site=each.patient.site,
            sex=each.patient.sex,
            age_years=each.patient.age_years(newest),
        )


def _records(chosen: Sequence[Chosen], rule: Rule, outcomes: dict[int, Outcome]) -> tuple[ScanRecord, ...]:
    """Return a record of every scan of the table, in the cohort's order."""
    records, places = [], 0
    for each in chosen:
        for scan, ground in zip(each.patient.scans, each.grounds, strict=True):
            records.append(
                ScanRecord(
                    line=scan.line,
                    patient=each.patient.patient,
                    acquired=scan.acquired.isoformat(),
                    path=str(scan.series.get(rule.role, "")),
                    status=ground.value if ground else INCLUDED,
                    place=places if ground is None else None,
                    outcome=outcomes.get(scan.line),
                )
            )
            places += ground is None
    return tuple(records)


def _write_records(out: Path, chosen: Sequence[Chosen], records: Sequence[ScanRecord], rule: Rule) -> None:
    """Write `scans.csv`, `patients.csv` and `exclusions.csv`."""
    write_exclusions(out, chosen)
    with (out / "scans.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(_COLUMNS)
        writer.writerows(_row(each, rule.role) for each in records)


def _row(record: ScanRecord, role: str) -> list[str]:
    """Return a scan's line of `scans.csv`."""
    done = record.outcome or Outcome(line=record.line)
    place = "" if record.place is None else str(record.place)
    known = [str(record.line), record.patient, record.acquired, role, record.path, record.status, place]
    return [*known, done.source_digest, done.key, done.volume_digest, *quality_columns(done), done.failure]


def quality_columns(outcome: Outcome) -> list[str]:
    """Return coverage, overlap, mutual information and flags as text; empty where nothing was measured."""
    quality = outcome.quality
    if quality is None:
        return ["", "", "", ""]
    figures = (quality.coverage, quality.overlap, quality.mutual_information)
    return [*(f"{figure:.3f}" for figure in figures), " ".join(flag.code for flag in quality.flags)]


def _provenance(table: CohortTable, rule: Rule, space: Space) -> Provenance:
    """Return what the cohort was made with."""
    template = loaded_template(space.template)
    return Provenance(
        table=f"sha256:{hashlib.sha256(table.path.read_bytes()).hexdigest()}",
        rule=rule,
        shape=space.shape,
        template=TemplateUsed(name=template.name, digest=template.digest),
        preprocessing_version=PREPROCESSING_VERSION,
    )

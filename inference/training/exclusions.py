"""Who and what was left out of a cohort, and why: counted so that included and excluded make all."""

from __future__ import annotations

import csv
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from inference.training.eligibility import Chosen

INCLUDED = "included"


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """Numbers of patients and scans: all, included, and excluded by reason."""

    patients: int
    included: int
    events: int  # of the included: an event within the horizon after the newest scan shown
    unknown: int  # of the included: label not known
    excluded: Mapping[str, int]
    scans: int
    shown: int
    left_out: Mapping[str, int]

    def lines(self) -> list[str]:
        """Return the account as text, most frequent reason first."""
        free = self.included - self.events - self.unknown
        return [
            f"{self.patients} patients: {self.included} included, {self.patients - self.included} excluded",
            *(f"  excluded, {reason}: {count}" for reason, count in self.excluded.items()),
            f"labels of the included: {self.events} with the event, {free} without, {self.unknown} unknown",
            f"{self.scans} scans: {self.shown} shown to the model, {self.scans - self.shown} left out",
            *(f"  left out, {ground}: {count}" for ground, count in self.left_out.items()),
        ]


def account(chosen: Sequence[Chosen]) -> Account:
    """Count patients and scans, included and excluded."""
    grounds = [ground for each in chosen for ground in each.grounds]
    included = [each for each in chosen if not each.excluded]
    return Account(
        patients=len(chosen),
        included=len(included),
        events=sum(each.label is True for each in included),
        unknown=sum(each.label is None for each in included),
        excluded=dict(Counter(each.excluded for each in chosen if each.excluded).most_common()),
        scans=len(grounds),
        shown=grounds.count(None),
        left_out=dict(Counter(ground.value for ground in grounds if ground is not None).most_common()),
    )


def write_exclusions(folder: Path, chosen: Sequence[Chosen]) -> None:
    """Write `patients.csv` (one line per patient) and `exclusions.csv` (one line per scan of the table)."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "patients.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["patient", "status", "scans", "shown", "newest_shown", "label", "site"])
        for each in chosen:
            days = [each.patient.scans[place].acquired for place in each.shown]
            label = "" if each.label is None else int(each.label)
            newest = days[-1].isoformat() if days else ""
            status = each.excluded or INCLUDED
            writer.writerow(
                [each.patient.patient, status, len(each.grounds), len(days), newest, label, each.patient.site]
            )
    with (folder / "exclusions.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["line", "patient", "scan_date", "status"])
        for each in chosen:
            for scan, ground in zip(each.patient.scans, each.grounds, strict=True):
                writer.writerow([scan.line, each.patient.patient, scan.acquired.isoformat(), ground or INCLUDED])

"""Who is trained on, who calibrates, who is locked away: one part per patient, drawn once and kept in a file.

Parts are the locked `test`, the `calibration` part that no member of an ensemble sees, and k folds. Patients are never
divided. The test may be drawn by patient, as whole sites (none of which occurs elsewhere), or as the patients whose
newest scan is the latest (everyone else's is older). Within these rules, parts are balanced for the label.
"""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import date
    from pathlib import Path

    from numpy.typing import NDArray

TEST, CALIBRATION = "test", "calibration"
_STUMBLES = {
    TEST: "it cannot be evaluated",
    CALIBRATION: "no probability can be calibrated on it",
    "fold": "training validated on it has no score to choose by",
}


class SplitError(ValueError):
    """Patients cannot be split as asked, or a split file cannot be used."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """What decides on a patient's part: label (1, 0, -1 where unknown), site, and day of the newest scan shown."""

    patient: str
    label: int
    site: str
    newest: date


class SplitPlan(BaseModel):
    """How patients are split; `test_sites` names the test's sites where they are not to be drawn."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    seed: int = 0
    test_by: Literal["patient", "site", "date"] = "patient"
    test: float = Field(default=0.2, ge=0, lt=1)
    calibration: float = Field(default=0.1, ge=0, lt=1)
    folds: int = Field(default=5, ge=2)
    test_sites: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _leaves_some(self) -> SplitPlan:
        """Refuse fractions that leave nobody to train on, and sites that no rule asks for."""
        if self.test + self.calibration >= 1:
            msg = f"test and calibration: expected less than 1 together, found {self.test + self.calibration:g}"
            raise ValueError(msg)
        if self.test_sites and self.test_by != "site":
            msg = f"test_sites: expected with test_by 'site' only, found {self.test_by!r}"
            raise ValueError(msg)
        return self


class Split(BaseModel):
    """A split as it is stored; the digest covers plan and parts, so that an edited file is noticed."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    plan: SplitPlan
    parts: dict[str, str]  # patient -> "test", "calibration" or "fold-0" ...
    digest: str

    @model_validator(mode="after")
    def _agrees(self) -> Split:
        """Refuse parts that the plan does not know, and a digest of something else."""
        if unknown := sorted(set(self.parts.values()) - set(part_names(self.plan))):
            msg = f"parts: expected {', '.join(part_names(self.plan))}, found {', '.join(unknown)}"
            raise ValueError(msg)
        if self.digest != (expected := split_digest(self.plan, self.parts)):
            msg = f"digest: expected {expected}, found {self.digest}; the file was edited after it was drawn"
            raise ValueError(msg)
        return self

    def places(self, patients: Sequence[str]) -> dict[str, NDArray[np.int64]]:
        """Return the places of a cohort's patients by part, each part ascending.

        Raises:
            SplitError: if a patient has no part.
        """
        if missing := [each for each in patients if str(each) not in self.parts]:
            raise SplitError(
                f"split: expected a part for every patient, found none for {len(missing)} of {len(patients)}; draw it "
                "from the cohort's own table, under the rule that prepared it"
            )
        found: dict[str, list[int]] = {name: [] for name in part_names(self.plan)}
        for place, each in enumerate(patients):
            found[self.parts[str(each)]].append(place)
        return {name: np.array(places, dtype=np.int64) for name, places in found.items()}


def fold_name(number: int) -> str:
    """Return the name of a fold's part."""
    return f"fold-{number}"


def part_names(plan: SplitPlan) -> tuple[str, ...]:
    """Return the names of all parts that a plan makes."""
    return (TEST, CALIBRATION, *(fold_name(number) for number in range(plan.folds)))


def split_digest(plan: SplitPlan, parts: Mapping[str, str]) -> str:
    """Return "sha256:..." over the plan and every patient's part, in the order of their names."""
    content = hashlib.sha256(plan.model_dump_json().encode())
    for patient, part in sorted(parts.items()):
        for text in (patient, part):
            content.update(len(text.encode()).to_bytes(8, "big") + text.encode())
    return f"sha256:{content.hexdigest()}"


def split(members: Sequence[Member], plan: SplitPlan) -> Split:
    """Draw a part for every patient; the same patients and plan give the same parts, in whatever order they come.

    Raises:
        SplitError: if a patient stands twice, or the rule cannot be kept with these patients.
    """
    ordered = sorted(members, key=lambda each: each.patient)
    twice = [name for name, count in Counter(each.patient for each in ordered).items() if count > 1]
    if twice:
        raise SplitError(f"split: expected every patient once, found {len(twice)} more often")
    rng = np.random.default_rng(plan.seed)
    test = _test(ordered, plan, rng)
    rest = [each for each in ordered if each not in test]
    # Of those who are left, so that it is the plan's share of all, however many whole sites and days took to the test.
    share = min(1.0, plan.calibration * len(ordered) / max(1, len(rest)))
    calibration = set(_stratified(rest, share, rng))
    folded = [each for each in rest if each not in calibration]
    if len(folded) < plan.folds:
        raise SplitError(f"split: expected at least a patient for each of {plan.folds} folds, found {len(folded)}")
    parts = {each.patient: TEST for each in test} | {each.patient: CALIBRATION for each in calibration}
    # Dealt like cards, stratum after stratum: folds differ by one patient at most, in all and in each label.
    dealt = [each for stratum in _strata(folded, rng) for each in stratum]
    parts |= {each.patient: fold_name(place % plan.folds) for place, each in enumerate(dealt)}
    parts = dict(sorted(parts.items()))
    return Split(plan=plan, parts=parts, digest=split_digest(plan, parts))


def one_sided(members: Sequence[Member], drawn: Split) -> tuple[str, ...]:
    """Return a sentence for every part that lacks events or patients without: what a later step would stumble over.

    Nothing is said where no outcome is known at all: the order pretext needs none.
    """
    labels: dict[str, list[int]] = {name: [] for name in part_names(drawn.plan)}
    for each in members:
        labels[drawn.parts[each.patient]].append(each.label)
    if not any(label >= 0 for part in labels.values() for label in part):
        return ()
    asked = {TEST: drawn.plan.test > 0, CALIBRATION: drawn.plan.calibration > 0}
    told = []
    for name, found in labels.items():
        if asked.get(name, True) and not (1 in found and 0 in found):
            told.append(
                f"{name}: expected patients with and without the event, found {found.count(1)} with and "
                f"{found.count(0)} without; {_STUMBLES.get(name, _STUMBLES['fold'])}. Ask for fewer folds, "
                "larger parts or more patients"
            )
    return tuple(told)


def _test(members: Sequence[Member], plan: SplitPlan, rng: np.random.Generator) -> set[Member]:
    """Return the patients that are locked away."""
    if plan.test_by == "site":
        sites = _test_sites(members, plan, rng)
        return {each for each in members if each.site in sites}
    if plan.test_by == "date":
        return _latest(members, plan.test)
    return set(_stratified(members, plan.test, rng))


def _test_sites(members: Sequence[Member], plan: SplitPlan, rng: np.random.Generator) -> set[str]:
    """Return the sites of the test: those named, else sites drawn until their share is as near as it gets."""
    counts = Counter(each.site for each in members)
    if "" in counts:
        raise SplitError(f"split by site: expected a site for every patient, found none for {counts['']}")
    if unknown := sorted(set(plan.test_sites) - set(counts)):
        raise SplitError(f"test_sites: expected some of {', '.join(sorted(counts))}, found {', '.join(unknown)}")
    if plan.test_sites:
        return set(plan.test_sites)
    if len(counts) < 2:
        raise SplitError(f"split by site: expected at least two sites, found {len(counts)}")
    wanted, taken = plan.test * len(members), set[str]()
    for site in rng.permutation(sorted(counts)):
        held = sum(counts[each] for each in taken)
        if abs(held + counts[str(site)] - wanted) < abs(held - wanted) and len(taken) + 1 < len(counts):
            taken.add(str(site))
    if plan.test and not taken:  # every site alone is more than twice the share: the smallest comes nearest
        taken.add(min(sorted(counts), key=lambda each: counts[each]))
    return taken


def _latest(members: Sequence[Member], share: float) -> set[Member]:
    """Return the patients whose newest scan is the latest; those of one day stay together."""
    newest = sorted((each.newest for each in members), reverse=True)
    wanted = round(share * len(newest))
    if not wanted:
        return set()
    if newest[-1] == newest[wanted - 1]:
        raise SplitError("split by date: expected patients with older scans to train on, found one day for all of them")
    return {each for each in members if each.newest >= newest[wanted - 1]}


def _stratified(members: Sequence[Member], share: float, rng: np.random.Generator) -> list[Member]:
    """Return a share of the patients, the same of every label as nearly as whole patients allow."""
    drawn: list[Member] = []
    seen = 0
    for stratum in _strata(members, rng):
        seen += len(stratum)
        drawn += stratum[: max(0, round(share * seen) - len(drawn))]  # what one label rounds off, the next gets
    return drawn


def _strata(members: Sequence[Member], rng: np.random.Generator) -> list[list[Member]]:
    """Return the patients by label, shuffled, the rarest label first."""
    by_label: dict[int, list[Member]] = defaultdict(list)
    for each in members:
        by_label[each.label].append(each)
    ordered = sorted(by_label.items(), key=lambda item: (len(item[1]), item[0]))
    return [[stratum[place] for place in rng.permutation(len(stratum))] for _, stratum in ordered]


def write_split(path: Path, drawn: Split) -> None:
    """Write a split as JSON, whole or not at all.

    Raises:
        OSError: if the disk says no.
    """
    temporary = path.with_name(f"{path.name}.part")
    temporary.write_text(drawn.model_dump_json(indent=2) + "\n", encoding="utf-8")
    temporary.replace(path)


def read_split(path: Path) -> Split:
    """Read a split.

    Raises:
        SplitError: if it cannot be read, or was changed since it was drawn.
    """
    try:
        return Split.model_validate_json(path.read_bytes())
    except OSError as error:
        raise SplitError(f"{path}: expected a split, found {error.strerror}") from error
    except ValidationError as error:
        raise SplitError(f"{path}: {'; '.join(each['msg'] for each in error.errors())}") from error

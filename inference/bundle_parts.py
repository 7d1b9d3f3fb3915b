"""What a bundle says of how far its answers can be trusted: calibration, conformal sets, novelty, thresholds.

Everything here is fitted on patients that no member of the ensemble has seen and that were used for nothing else: not
to train, not to choose an epoch, a recipe or a seed, not to score. Most parts are told by number of scans, because a
network that saw one scan knows less than one that saw six, and is wrong in another way.

Pure Python: a node reads this without torch or numpy.
"""

from __future__ import annotations

from enum import StrEnum
from itertools import pairwise
from typing import Annotated, Literal, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

Probability = Annotated[float, Field(ge=0, le=1)]
Fraction = Annotated[float, Field(gt=0, lt=1)]
Count = Annotated[int, Field(ge=0)]


class Part(BaseModel):
    """A piece of a bundle's JSON: immutable, and an unknown key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Rule(StrEnum):
    """What a node does about an answer that cannot be trusted."""

    FLAG = "flag"  # answer, and say so beside the number
    ABSTAIN = "abstain"  # give the reason instead of a number


class ScanGroup(Part):
    """Something that holds for time lines of a number of scans, both ends included."""

    n_scans: tuple[int, int]

    @model_validator(mode="after")
    def _ordered(self) -> ScanGroup:
        low, high = self.n_scans
        if not 1 <= low <= high:
            msg = f"n_scans: expected 1 <= lowest <= highest, found {low} and {high}"
            raise ValueError(msg)
        return self


GroupT = TypeVar("GroupT", bound=ScanGroup)


def group_for(groups: tuple[GroupT, ...], n_scans: int) -> GroupT | None:
    """Return the group that a number of scans belongs to, None if there is none."""
    return next((each for each in groups if each.n_scans[0] <= n_scans <= each.n_scans[1]), None)


def _apart(groups: tuple[GroupT, ...]) -> tuple[GroupT, ...]:
    for before, after in pairwise(groups):
        if before.n_scans[1] >= after.n_scans[0]:
            msg = f"groups: expected ascending ones that do not overlap, found {before.n_scans} before {after.n_scans}"
            raise ValueError(msg)
    return groups


class CalibrationGroup(ScanGroup):
    """Platt scaling for one group of numbers of scans, and how much it was fitted on."""

    slope: Annotated[float, Field(ge=0)]
    intercept: float
    n_patients: Count
    n_events: Count


class Calibration(Part):
    """Platt scaling of one output: calibrated = sigmoid(slope x logit + intercept).

    The logit is the members' mean. A time line whose number of scans belongs to a group takes the group's numbers, any
    other the pooled ones that stand here.
    """

    slope: float = 1.0
    intercept: float = 0.0
    groups: Annotated[tuple[CalibrationGroup, ...], AfterValidator(_apart)] = ()

    def line(self, n_scans: int) -> tuple[float, float]:
        """Return slope and intercept for a number of scans."""
        group = group_for(self.groups, n_scans)
        return (self.slope, self.intercept) if group is None else (group.slope, group.intercept)


class ConformalGroup(ScanGroup):
    """Which mean logits leave which answer possible, for one group of numbers of scans.

    None: always possible, for too few such patients were there to tell (fewer than 9 at a coverage of 90 %).
    """

    event_from: float | None
    no_event_up_to: float | None
    n_events: Count
    n_others: Count


class Conformal(Part):
    """Class-conditional split conformal prediction: an answer is possible unless the logit is unlikely under it.

    Of patients with an event, and of those without, at least the share `coverage` has what happens to them among its
    possible answers, on average over calibration sets and as long as patients are like those of calibration. The rules
    say what becomes of a run whose set holds both answers, or neither.
    """

    coverage: Fraction
    groups: Annotated[tuple[ConformalGroup, ...], AfterValidator(_apart)] = Field(min_length=1)
    both: Rule = Rule.FLAG
    neither: Rule = Rule.ABSTAIN

    def answers(self, n_scans: int, logit: float) -> tuple[bool, ...] | None:
        """Return the possible answers, False before True; None where no group speaks for the number of scans."""
        group = group_for(self.groups, n_scans)
        if group is None:
            return None
        no_event = group.no_event_up_to is None or logit <= group.no_event_up_to
        event = group.event_from is None or logit >= group.event_from
        return (False,) * no_event + (True,) * event


class Novelty(Part):
    """How far from the calibration scans a scan may lie before it counts as out of distribution.

    The distances are those of `inference.novelty`, over the distributions that lie in `models/novelty.npz`. A limit is
    the quantile of the distances of calibration scans, each measured without its own patient.
    """

    limit: Annotated[float, Field(gt=0)]  # of what the encoders make of a scan
    block_limit: Annotated[float, Field(gt=0)] | None = None  # of its coarse brightness; None: not looked at
    quantile: Fraction
    n_patients: Count
    n_scans: Count
    rule: Rule = Rule.ABSTAIN


class SaliencyMethod(StrEnum):
    """How the answer is traced back to the voxels of one scan."""

    INTEGRATED_GRADIENTS = "integrated-gradients"
    OCCLUSION = "occlusion"
    DIFFERENCE = "difference"  # what in this scan, against the one before, moves the answer


class SaliencyEvidence(Part):
    """Which method makes the maps, and whether they were found to show what truly changed.

    The rule of the check, and what was measured: `inference.evaluation.saliency_summary`.
    """

    method: SaliencyMethod
    delivered_by_default: bool  # by a task that leaves it to the bundle
    evidence: Annotated[str, Field(min_length=1)]


class Target(Part):
    """What a threshold was chosen for, on calibration patients: at least so much of one of the two."""

    measure: Literal["sensitivity", "specificity"]
    at_least: Fraction


class PredictiveValues(Part):
    """What a positive and a negative answer mean where so many patients have an event; meaningless without that."""

    prevalence: Fraction
    ppv: Probability | None  # None: no answer was positive
    npv: Probability | None


class ChosenThreshold(Part):
    """A threshold on the calibrated probability as calibration patients fixed it, whatever it reaches elsewhere."""

    name: str
    threshold: Probability
    target: Target | None = None


class OperatingPoint(Part):
    """A threshold on the calibrated probability (positive: at or above it) and what it reached on unseen patients.

    `target` says what the threshold was chosen for on calibration patients; None: somebody chose the number.
    """

    name: str
    threshold: Probability
    sensitivity: Probability
    specificity: Probability
    target: Target | None = None
    n_patients: Count | None = None
    predictive_values: PredictiveValues | None = None

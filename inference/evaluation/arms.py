"""All arms in one table, and the differences between them on the same bootstrap samples of patients."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from inference.evaluation.answers import final_answers, fix, scaled
from inference.evaluation.baselines import BASELINES, COUNT, GAP, VOLUME, baseline_answers
from inference.evaluation.bootstrap import Estimate, Sampling, estimate, holm, p_value
from inference.evaluation.metrics import auroc
from inference.evaluation.resampled import areas, average_precisions, means, rates

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from inference.evaluation.answers import Answers, Fixed
    from inference.evaluation.predictions import Predictions

SINGLE, SCRATCH, SHAM, ORDER = "single", "scratch", "sham", "order"
PRIMARY = (ORDER, SINGLE)
SECONDARY = ((ORDER, SCRATCH), (ORDER, SHAM), (SCRATCH, SINGLE), (ORDER, VOLUME))


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Lineup:
    """Every arm and baseline at the final landmark of one population, and what validation fixed for each."""

    answers: Mapping[str, Answers]
    fixed: Mapping[str, Fixed]

    @property
    def labels(self) -> NDArray[np.bool_]:
        """Return the labels, the same for every arm."""
        return next(iter(self.answers.values())).labels


@dataclass(frozen=True, slots=True, kw_only=True)
class ArmScore:
    """One row of the table of arms.

    `brier` is of probabilities Platt-scaled on validation, alike for every arm; `f1` is at the threshold that
    validation fixed and at the declared prevalence; `ceiling` is the ideal reader's AUROC with the scans the arm read,
    averaged over patients where their numbers differ (an approximation then); None for what looks at no image.
    """

    name: str
    network: bool
    n_seeds: int
    mean_scans: float
    auroc: Estimate
    seed_sd: float | None  # of the AUROC between seeds; None with one seed
    auprc: Estimate
    f1: Estimate
    brier: Estimate
    ceiling: float | None
    efficiency: Estimate | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """AUROC of one arm minus that of another on the same patients; `p_holm` is None for the primary comparison."""

    name: str
    primary: bool
    difference: Estimate
    p: float
    p_holm: float | None


def line_up(target: Predictions, *, validation: Predictions, fitting: Predictions, prevalence: float) -> Lineup:
    """Return all answers for the target; thresholds come from validation, baselines from the patients for fitting."""
    known = {name: final_answers(validation, name) for name in target.logits}
    known |= baseline_answers(fitting, validation)
    answers = {name: final_answers(target, name) for name in target.logits}
    answers |= baseline_answers(fitting, target)
    return Lineup(answers=answers, fixed={name: fix(each, prevalence) for name, each in known.items()})


def score_arms(
    lineup: Lineup, counts: NDArray[np.float64], *, prevalence: float, ceilings: Mapping[int, float] | None
) -> tuple[ArmScore, ...]:
    """Return one row per arm and baseline."""
    return tuple(
        _score(each, lineup.fixed[name], counts, prevalence=prevalence, ceilings=ceilings)
        for name, each in lineup.answers.items()
    )


def _score(
    answers: Answers,
    fixed: Fixed,
    counts: NDArray[np.float64],
    *,
    prevalence: float,
    ceilings: Mapping[int, float] | None,
) -> ArmScore:
    scores, labels = answers.mean, answers.labels
    area = estimate(areas(scores, labels, counts))
    ceiling = None if answers.name in (GAP, COUNT) else mean_ceiling(answers.scans, ceilings)
    per_seed = [auroc(each, labels) for each in answers.logits]
    return ArmScore(
        name=answers.name,
        network=answers.name not in BASELINES,
        n_seeds=len(per_seed),
        mean_scans=float(answers.scans.mean()),
        auroc=area,
        seed_sd=float(np.std(per_seed, ddof=1)) if len(per_seed) > 1 else None,
        auprc=estimate(average_precisions(scores, labels, counts)),
        f1=estimate(rates(scores >= fixed.threshold, labels, counts).f1(prevalence)),
        brier=estimate(means((scaled(answers, fixed) - labels) ** 2, counts)),
        ceiling=ceiling,
        efficiency=efficiency(area, ceiling),
    )


def mean_ceiling(scans: NDArray[np.int64], ceilings: Mapping[int, float] | None) -> float | None:
    """Return the ceiling of these numbers of scans, averaged over patients; None where one is not known."""
    if ceilings is None or not all(int(length) in ceilings for length in np.unique(scans)):
        return None
    return float(np.mean([ceilings[int(length)] for length in scans]))


def efficiency(area: Estimate, ceiling: float | None) -> Estimate | None:
    """Return (AUROC - 0.5) / (ceiling - 0.5): the share of what could be known that the arm knows."""
    if ceiling is None or ceiling <= 0.5:
        return None
    return area.scaled(origin=0.5, unit=ceiling - 0.5)


def compare(lineup: Lineup, counts: NDArray[np.float64], *, delivered: str) -> tuple[Comparison, ...]:
    """Return the primary comparison and the secondary ones, Holm's adjustment over the latter.

    They are declared: order - single is primary. A delivered arm of another name is compared as well.
    """
    areas_of = {name: areas(each.mean, each.labels, counts) for name, each in lineup.answers.items()}
    declared = dict.fromkeys((PRIMARY, *SECONDARY, (delivered, SINGLE), (delivered, VOLUME)))
    pairs = [(one, other) for one, other in declared if one != other and {one, other} <= set(areas_of)]
    differences = [areas_of[one] - areas_of[other] for one, other in pairs]
    p_values = [p_value(each) for each in differences]
    secondary = [index for index, pair in enumerate(pairs) if pair != PRIMARY]
    adjusted = dict(zip(secondary, holm([p_values[index] for index in secondary]), strict=True))
    return tuple(
        Comparison(
            name=f"{one} - {other}",
            primary=(one, other) == PRIMARY,
            difference=estimate(differences[index]),
            p=p_values[index],
            p_holm=adjusted.get(index),
        )
        for index, (one, other) in enumerate(pairs)
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class PretextGain:
    """What the order pretext adds where lesions grow by `mean_growth` (log-volume per year) on average."""

    mean_growth: float
    n_train: int  # patients that each network was trained on
    n_patients: int  # of the test
    over_scratch: Estimate
    over_sham: Estimate


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class GrowthTest:
    """What order, scratch and sham answer about patients of one mean growth, and how many each was trained on."""

    predictions: Predictions
    n_train: int


def pretext_gains(by_growth: Mapping[float, GrowthTest], *, sampling: Sampling) -> tuple[PretextGain, ...]:
    """Return the gain per mean growth, ascending; 0 is the negative control: nothing there has a direction in time."""
    gains = []
    for growth, of in sorted(by_growth.items()):
        answers = {name: final_answers(of.predictions, name) for name in (ORDER, SCRATCH, SHAM)}
        labels = answers[ORDER].labels
        counts = sampling.counts(len(labels))
        area = {name: areas(each.mean, labels, counts) for name, each in answers.items()}
        gains.append(
            PretextGain(
                mean_growth=float(growth),
                n_train=of.n_train,
                n_patients=len(labels),
                over_scratch=estimate(area[ORDER] - area[SCRATCH]),
                over_sham=estimate(area[ORDER] - area[SHAM]),
            )
        )
    return tuple(gains)

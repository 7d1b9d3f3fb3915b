"""Everything that one table of predictions can tell, in one pure value: no network, no file, no clock.

The order of the figures: all arms at the final landmark (one row per patient, paired bootstrap of patients on
seed-averaged logits), then what the delivered arm's probabilities are worth, then what another scan adds, then where
the figures could come from instead. Whatever needs fixing is fixed on validation patients: thresholds, scalings,
baselines.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np

from inference.evaluation.answers import delivered_probabilities, final_answers
from inference.evaluation.arms import ORDER, compare, line_up, pretext_gains, score_arms
from inference.evaluation.bootstrap import Sampling
from inference.evaluation.cautions import cautions
from inference.evaluation.coverage import coverage_curve
from inference.evaluation.decisions import decision_curve, point_figures, validation_thresholds
from inference.evaluation.groups import score_groups
from inference.evaluation.k_curve import k_curve
from inference.evaluation.metrics import roc_curve
from inference.evaluation.prefixes import follow_prefixes
from inference.evaluation.reliability import reliability
from inference.evaluation.slice_losses import slice_losses

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from inference.evaluation.answers import Answers, Calibrate
    from inference.evaluation.arms import ArmScore, Comparison, GrowthTest, Lineup, PretextGain
    from inference.evaluation.confound_figures import ConfoundFigure
    from inference.evaluation.coverage import CoveragePoint
    from inference.evaluation.decisions import DecisionCurve, PointFigures
    from inference.evaluation.groups import GroupScore
    from inference.evaluation.k_curve import KCurve
    from inference.evaluation.locked import Opening
    from inference.evaluation.operating import Threshold
    from inference.evaluation.predictions import Predictions
    from inference.evaluation.prefixes import Prefixes
    from inference.evaluation.reliability import Reliability
    from inference.evaluation.slice_losses import SliceLoss, ThickSlices


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What is declared before the test is opened."""

    prevalence: float  # of the population that PPV, NPV and F1 speak of
    synthetic: bool  # True: every table, figure and report says "synthetic phantoms"
    delivered: str = ORDER  # the arm whose probabilities a node would report
    sampling: Sampling = field(default_factory=Sampling)

    def __post_init__(self) -> None:
        """Refuse a prevalence that is no proportion.

        Raises:
            ValueError: if the prevalence is not between 0 and 1.
        """
        if not 0 < self.prevalence < 1:
            raise ValueError(f"evaluation: expected a prevalence between 0 and 1, found {self.prevalence}")


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Evidence:
    """What may stand beside the test table; whatever is missing leaves its section out of the report."""

    training: Predictions | None = None  # its rows fit the baselines without network; validation does otherwise
    shifted: tuple[Predictions, ...] = ()  # other populations, never used for training or choice
    by_growth: Mapping[float, GrowthTest] = field(default_factory=dict)  # by mean growth m
    thresholds: tuple[Threshold, ...] = ()  # on the delivered probability, as shipped; validation fixes them otherwise
    uncertainty: NDArray[np.float64] | None = None  # (P,) of the test table; the seeds' spread otherwise
    one_scan_dropped: NDArray[np.float64] | None = None  # (6, P) probabilities of the delivered arm
    thick_slices: tuple[ThickSlices, ...] = ()  # the delivered arm on the test patients, their scans blurred
    confounds: tuple[ConfoundFigure, ...] = ()
    openings: tuple[Opening, ...] = ()  # of locked test data, the ones of this evaluation


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Population:
    """One set of patients: all arms, their differences, and the calibration of the delivered arm."""

    name: str
    n_patients: int
    n_events: int
    n_unknown: int  # left out: follow-up ended too early to know
    arms: tuple[ArmScore, ...]
    comparisons: tuple[Comparison, ...]
    reliability: Reliability


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Roc:
    """The points of an ROC curve, from (0, 0) to (1, 1)."""

    false_positive_rate: tuple[float, ...]
    true_positive_rate: tuple[float, ...]


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Evaluation:
    """All figures; None or empty where there was nothing to compute them from."""

    plan: Plan
    test: Population
    shifted: tuple[Population, ...]
    probabilities: tuple[float, ...]  # of the delivered arm, one per test patient with a known outcome
    rocs: Mapping[str, Roc]
    operating_points: tuple[PointFigures, ...]
    decision_curve: DecisionCurve
    k_curve: KCurve | None
    groups: tuple[GroupScore, ...]
    prefixes: Prefixes | None
    pretext_gains: tuple[PretextGain, ...]
    coverage: tuple[CoveragePoint, ...]
    slice_losses: tuple[SliceLoss, ...]
    confounds: tuple[ConfoundFigure, ...]
    openings: tuple[Opening, ...]
    baselines_fitted_on: str  # the population whose rows fitted the baselines
    warnings: tuple[str, ...] = ()


def evaluate(
    test: Predictions,
    *,
    validation: Predictions,
    calibrate: Calibrate,
    ceilings: Mapping[int, float] | None,
    plan: Plan,
    evidence: Evidence | None = None,
) -> Evaluation:
    """Return every figure about the test patients.

    Args:
        test: the table of the internal test; open it through `locked.open_locked`.
        validation: patients of neither training nor test, with the same arms.
        calibrate: (number of scans, logits averaged over seeds or of one seed) to the delivered arm's probabilities.
        ceilings: the ideal reader's AUROC by number of scans (`inference.phantom.bayes_ceiling`); None if unknown.
        plan: what was declared beforehand.
        evidence: what else is there.

    Raises:
        ValueError: if an arm or a class is missing, or patients of the test were also used before it.
    """
    evidence = evidence or Evidence()
    for population in (test, *evidence.shifted):
        _refuse_overlap(population, validation, evidence.training)
    before = _Before(
        validation=validation,
        fitting=evidence.training or validation,
        calibrate=calibrate,
        ceilings=ceilings,
        plan=plan,
    )
    best_f1, *targets = before.thresholds()
    lineup = before.line_up(test)
    if plan.delivered not in lineup.answers:
        raise ValueError(f"{test.population}: expected arm {plan.delivered!r}, found {sorted(lineup.answers)}")
    delivered = lineup.answers[plan.delivered]
    chances, labels = before.probabilities(delivered), delivered.labels
    counts = plan.sampling.counts(len(chances))
    uncertainty = _uncertainty(evidence.uncertainty, test, before.probabilities_of_seeds(delivered))
    figures = Evaluation(
        plan=plan,
        test=_population(test, lineup, before),
        shifted=tuple(_population(each, before.line_up(each), before) for each in evidence.shifted),
        probabilities=tuple(chances.tolist()),
        rocs={name: _roc(each.mean, each.labels) for name, each in lineup.answers.items()},
        operating_points=tuple(
            point_figures(each, probabilities=chances, labels=labels, counts=counts, prevalence=plan.prevalence)
            for each in (best_f1, *(evidence.thresholds or targets))
        ),
        decision_curve=decision_curve(chances, labels, counts),
        k_curve=k_curve(test, delivered=plan.delivered, calibrate=calibrate, ceilings=ceilings, sampling=plan.sampling),
        groups=score_groups(test, delivered.mean, chances, sampling=plan.sampling),
        prefixes=follow_prefixes(
            test, plan.delivered, calibrate=calibrate, dropped=evidence.one_scan_dropped, sampling=plan.sampling
        ),
        pretext_gains=pretext_gains(evidence.by_growth, sampling=plan.sampling),
        coverage=_coverage(delivered, before, uncertainty=uncertainty, threshold=best_f1),
        slice_losses=slice_losses(test, plan.delivered, evidence.thick_slices, sampling=plan.sampling),
        confounds=evidence.confounds,
        openings=evidence.openings,
        baselines_fitted_on=before.fitting.population,
    )
    return replace(figures, warnings=cautions(figures))


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class _Before:
    """All that is fixed before a test patient is seen."""

    validation: Predictions
    fitting: Predictions
    calibrate: Calibrate
    ceilings: Mapping[int, float] | None
    plan: Plan

    def line_up(self, target: Predictions) -> Lineup:
        return line_up(target, validation=self.validation, fitting=self.fitting, prevalence=self.plan.prevalence)

    def probabilities(self, answers: Answers) -> NDArray[np.float64]:
        return delivered_probabilities(answers.mean, answers.scans, self.calibrate)

    def probabilities_of_seeds(self, answers: Answers) -> NDArray[np.float64]:
        return delivered_probabilities(answers.logits, answers.scans, self.calibrate)

    def thresholds(self) -> tuple[Threshold, ...]:
        known = final_answers(self.validation, self.plan.delivered)
        return validation_thresholds(self.probabilities(known), known.labels, self.plan.prevalence)


def _population(target: Predictions, lineup: Lineup, before: _Before) -> Population:
    delivered, plan = lineup.answers[before.plan.delivered], before.plan
    counts = plan.sampling.counts(len(delivered.labels))
    return Population(
        name=target.population,
        n_patients=len(delivered.labels),
        n_events=int(delivered.labels.sum()),
        n_unknown=int((target.labels < 0).sum()),
        arms=score_arms(lineup, counts, prevalence=plan.prevalence, ceilings=before.ceilings),
        comparisons=compare(lineup, counts, delivered=plan.delivered),
        reliability=reliability(before.probabilities(delivered), delivered.labels, counts, seed=plan.sampling.seed),
    )


def _uncertainty(
    given: NDArray[np.float64] | None, test: Predictions, by_seed: NDArray[np.float64]
) -> NDArray[np.float64] | None:
    """Return the uncertainty of labelled patients: as given, else the spread between seeds; None with one seed.

    Raises:
        ValueError: if what is given does not fit the patients.
    """
    if given is not None:
        if given.shape != test.labels.shape or not np.isfinite(given).all():
            raise ValueError(
                f"uncertainty: expected a finite number for each of {len(test.labels)} patients, found {given.shape}"
            )
        return given[test.labels >= 0]
    return by_seed.std(axis=0, ddof=1) if len(by_seed) > 1 else None


def _coverage(
    delivered: Answers, before: _Before, *, uncertainty: NDArray[np.float64] | None, threshold: Threshold
) -> tuple[CoveragePoint, ...]:
    if uncertainty is None:
        return ()
    return coverage_curve(
        delivered.mean,
        before.probabilities(delivered),
        delivered.labels,
        uncertainty=uncertainty,
        threshold=threshold.value,
        sampling=before.plan.sampling,
    )


def _roc(scores: NDArray[np.float64], labels: NDArray[np.bool_]) -> Roc:
    alarms, hits = roc_curve(scores, labels)
    return Roc(false_positive_rate=tuple(alarms.tolist()), true_positive_rate=tuple(hits.tolist()))


def _refuse_overlap(test: Predictions, validation: Predictions, training: Predictions | None) -> None:
    """Refuse patients that were used before they were tested: figures would flatter whoever remembers them."""
    for used in (validation, training):
        shared = set() if used is None else set(test.patients.tolist()) & set(used.patients.tolist())
        if used is not None and shared:
            raise ValueError(
                f"{test.population}: expected patients never used before, found {len(shared)} of {used.population!r}"
            )

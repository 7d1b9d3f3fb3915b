"""A whole evaluation on simulated answers: what must be found is found, what must not be is not."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest

from inference.evaluation.arms import GrowthTest
from inference.evaluation.baselines import COUNT, GAP, VOLUME
from inference.evaluation.bootstrap import Estimate, Sampling
from inference.evaluation.confound_figures import ConfoundFigure
from inference.evaluation.evaluate import Evaluation, Evidence, Plan, evaluate
from inference.evaluation.locked import Opening
from inference.evaluation.metrics import auroc
from inference.evaluation.operating import Threshold
from inference.evaluation.report_tables import gains_table
from inference.evaluation.slice_losses import ThickSlices
from tests.factories.predictions import predictions_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from inference.evaluation.predictions import Predictions

PLAN = Plan(prevalence=0.3, synthetic=True, sampling=Sampling(resamples=300))
CEILINGS = {1: 0.75, 2: 0.80, 3: 0.82, 4: 0.85, 5: 0.87, 6: 0.88}


def as_they_are(n_scans: int, logits: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return probabilities of logits that are log-odds already."""
    return np.asarray(1 / (1 + np.exp(-logits)))


def evaluated(test: Predictions, evidence: Evidence | None = None, plan: Plan = PLAN) -> Evaluation:
    """Evaluate against validation patients of the same kind."""
    validation = predictions_of(300, seed=101, population="validation", n_scans=None)
    return evaluate(test, validation=validation, calibrate=as_they_are, ceilings=CEILINGS, plan=plan, evidence=evidence)


@pytest.fixture(scope="module")
def plain() -> Evaluation:
    """Return an evaluation of 700 patients without any leak."""
    return evaluated(predictions_of(780, seed=2))


def test_all_arms_and_baselines_stand_in_one_table(plain: Evaluation) -> None:
    """Each with its interval around its figure; better answers rank higher."""
    arms = {arm.name: arm for arm in plain.test.arms}
    assert list(arms) == ["single", "scratch", "sham", "order", GAP, COUNT, VOLUME]
    assert all(arm.auroc.lower <= arm.auroc.value <= arm.auroc.upper for arm in arms.values())
    assert arms["single"].auroc.value < arms["scratch"].auroc.value < arms["order"].auroc.value
    assert [arm.network for arm in arms.values()] == [True] * 4 + [False] * 3


def test_the_primary_figure_is_of_seed_averaged_logits_one_row_per_patient() -> None:
    """Each patient's most scans, seeds averaged before scoring; the seeds' own spread stands apart."""
    test = predictions_of(400, seed=5, n_scans=None)
    arm = next(each for each in evaluated(test).test.arms if each.name == "order")
    rows = np.flatnonzero(test.labels >= 0)
    by_seed = np.stack([test.logits["order"][:, test.n_scans[row] - 1, row] for row in rows], axis=1)
    labels = test.labels[rows] == 1
    assert arm.auroc.value == pytest.approx(auroc(by_seed.mean(axis=0), labels))
    assert arm.seed_sd == pytest.approx(np.std([auroc(each, labels) for each in by_seed], ddof=1))
    assert arm.mean_scans == pytest.approx(test.n_scans[rows].mean())
    assert arm.ceiling == pytest.approx(np.mean([CEILINGS[int(n)] for n in test.n_scans[rows]]))


def test_efficiency_is_the_share_of_what_could_be_known(plain: Evaluation) -> None:
    """Under the ceiling of six scans; a single scan under that of one; what sees no image has none."""
    arms = {arm.name: arm for arm in plain.test.arms}
    order, single = arms["order"], arms["single"]
    assert order.efficiency is not None
    assert order.efficiency.value == pytest.approx((order.auroc.value - 0.5) / 0.38)
    assert single.ceiling == 0.75
    assert arms[GAP].efficiency is arms[COUNT].ceiling is None


def test_the_primary_comparison_stands_outside_of_holm(plain: Evaluation) -> None:
    """Secondary p-values are adjusted, never lowered; differences are those of the table."""
    arms = {arm.name: arm.auroc.value for arm in plain.test.arms}
    for each in plain.test.comparisons:
        one, other = each.name.split(" - ")
        assert each.difference.value == pytest.approx(arms[one] - arms[other])
        assert each.primary is (each.name == "order - single") is (each.p_holm is None)
        assert each.p_holm is None or each.p_holm >= each.p
    assert plain.test.comparisons[0].difference.lower > 0


def test_one_arm_of_any_name_can_be_evaluated() -> None:
    """A bundle alone is compared with the lesion-volume rule; with other arms, also with a single scan."""
    plan = replace(PLAN, delivered="bundle")
    validation = predictions_of(200, seed=30, population="validation", noise={"bundle": 1.0, "single": 6.0})
    both = predictions_of(200, seed=31, noise={"bundle": 1.0, "single": 6.0})
    alone = replace(both, logits={"bundle": both.logits["bundle"]})
    names = [
        [
            each.name
            for each in evaluate(
                test, validation=validation, calibrate=as_they_are, ceilings=None, plan=plan
            ).test.comparisons
        ]
        for test in (alone, both)
    ]
    assert names == [["bundle - lesion-volume rule"], ["bundle - single", "bundle - lesion-volume rule"]]


def test_paired_intervals_are_narrower_than_unpaired_ones() -> None:
    """Two arms that say almost the same differ by almost nothing, however wide either interval is."""
    test = predictions_of(300, seed=8)
    rng = np.random.default_rng(0)
    logits = dict(test.logits)
    logits["scratch"] = logits["order"] + 0.05 * rng.standard_normal(logits["order"].shape)
    found = evaluated(replace(test, logits=logits)).test
    difference = next(each for each in found.comparisons if each.name == "order - scratch").difference
    order = next(each for each in found.arms if each.name == "order").auroc
    assert difference.upper - difference.lower < 0.2 * (order.upper - order.lower)


def test_independent_gaps_and_equal_counts_raise_no_leak(plain: Evaluation) -> None:
    """Gap-only lies about 0.5, count-only exactly there."""
    arms = {arm.name: arm.auroc for arm in plain.test.arms}
    assert arms[COUNT].value == arms[COUNT].lower == arms[COUNT].upper == 0.5
    assert not [each for each in plain.warnings if "LEAK" in each]


@pytest.mark.parametrize("gap_per_growth", [-0.4, 0.4])
def test_gaps_driven_by_suspicion_raise_the_leak_warning(gap_per_growth: float) -> None:
    """Shorter or longer, and whether or not the patients for fitting have the leak."""
    test = predictions_of(300, seed=3, gap_per_growth=gap_per_growth)
    for fitted_gap in (0.0, -gap_per_growth, gap_per_growth):
        training = predictions_of(300, seed=4, population="training", gap_per_growth=fitted_gap)
        found = evaluated(test, Evidence(training=training))
        assert any("LEAK: gap only" in each for each in found.warnings)
    arms = {arm.name: arm.auroc.value for arm in found.test.arms}
    assert arms[GAP] > 0.6


def test_scan_counts_that_tell_the_outcome_raise_the_leak_warning() -> None:
    """Patients with events were scanned more often."""
    test, training = (
        replace(each, n_scans=np.where(each.labels == 1, 6, 5))
        for each in (predictions_of(300, seed=3), predictions_of(300, seed=4, population="training"))
    )
    assert any("LEAK: scan count only" in each for each in evaluated(test, Evidence(training=training)).warnings)


def test_an_arm_above_its_ceiling_is_a_leak() -> None:
    """A single scan that knows the outcome knows what no image should tell, at the landmark and on the k-curve."""
    test = predictions_of(300, seed=6, noise={"single": 0.2, "scratch": 1.6, "sham": 1.5, "order": 1.0})
    leaks = [each for each in evaluated(test).warnings if "LEAK: single" in each]
    assert len(leaks) == 2


def test_the_k_curve_shows_the_same_patients_with_fewer_scans() -> None:
    """Only patients with six scans, one label; it rises, and the late gain is paired."""
    test = predictions_of(900, seed=9, n_scans=None, noise={"single": 6.0, "order": 1.0, "scratch": 1.5, "sham": 1.5})
    curve = evaluated(test).k_curve
    assert curve is not None
    rows = (test.n_scans == 6) & (test.labels >= 0)
    assert (curve.n_patients, curve.n_events) == (rows.sum(), (test.labels[rows] == 1).sum())
    assert [point.n_scans for point in curve.points["single"]] == [1]
    points = curve.points["order"]
    labels = test.labels[rows] == 1
    for point in points:
        mean = test.logits["order"][:, point.n_scans - 1, rows].mean(axis=0)
        assert point.auroc.value == pytest.approx(auroc(mean, labels))
        assert point.ceiling == CEILINGS[point.n_scans]
    assert points[5].auroc.value > points[0].auroc.value
    late = curve.late_gain["order"]
    assert late.value == pytest.approx(points[5].auroc.value - points[3].auroc.value)
    assert late.upper - late.lower < points[5].auroc.upper - points[5].auroc.lower


def test_without_patients_with_six_scans_there_is_no_k_curve() -> None:
    """The section is left out."""
    assert evaluated(predictions_of(100, seed=10, n_scans=4)).k_curve is None


def test_prefixes_are_scored_by_their_own_labels() -> None:
    """Turning the labels of one prefix round turns its AUROC round and no other."""
    test = predictions_of(300, seed=11)
    labels = test.prefix_labels.copy()
    labels[1] = np.where(labels[1] >= 0, 1 - labels[1], -1)
    before, after = (evaluated(each).prefixes for each in (test, replace(test, prefix_labels=labels)))
    assert before is not None
    assert after is not None
    areas = [
        [score.auroc.value if score.auroc else np.nan for score in prefixes.scores] for prefixes in (before, after)
    ]
    assert areas[1][1] == pytest.approx(1 - areas[0][1])
    assert areas[1][2:] == areas[0][2:]


def test_stability_is_the_largest_move() -> None:
    """Between prefixes by default; when scans are dropped, against the answer from all of them."""
    test = predictions_of(200, seed=12)
    steps = evaluated(test).prefixes
    chances = as_they_are(6, test.prefix_logits["order"].mean(axis=0))
    dropped = np.tile(chances[5], (6, 1))
    dropped[2] += 0.25
    by_dropping = evaluated(test, Evidence(one_scan_dropped=dropped)).prefixes
    assert steps is not None
    assert by_dropping is not None
    assert steps.stability is not None
    assert by_dropping.stability is not None
    assert steps.stability.largest == pytest.approx(np.abs(np.diff(chances, axis=0)).max())
    assert not steps.stability.one_scan_dropped
    assert by_dropping.stability.median == pytest.approx(0.25)
    assert by_dropping.stability.share_above == 1.0


def test_the_pretext_gain_is_reported_by_growth_with_its_negative_control() -> None:
    """No gain at m = 0, a gain at 1.2; a gain at m = 0 is a warning."""
    no_gain = {"order": 1.5, "scratch": 1.5, "sham": 1.5}
    gain = {"order": 0.5, "scratch": 1.8, "sham": 1.8}
    honest = {
        1.2: GrowthTest(predictions=predictions_of(600, seed=13, noise=gain), n_train=480),
        0.0: GrowthTest(predictions=predictions_of(600, seed=14, noise=no_gain), n_train=480),
    }
    found = evaluated(predictions_of(150, seed=15), Evidence(by_growth=honest))
    assert [each.mean_growth for each in found.pretext_gains] == [0.0, 1.2]
    assert found.pretext_gains[0].over_scratch.lower < 0 < found.pretext_gains[0].over_scratch.upper
    assert found.pretext_gains[1].over_sham.lower > 0
    assert not any("negative control" in each for each in found.warnings)
    dishonest = evaluated(predictions_of(150, seed=15), Evidence(by_growth={0.0: honest[1.2]}))
    assert any("negative control" in each for each in dishonest.warnings)


def test_growths_that_were_trained_on_different_numbers_are_not_compared_silently() -> None:
    """A curve over growth that mixes training sizes is warned about, and the table prints them; equal ones are not."""
    table = predictions_of(200, seed=13)
    for sizes, warned in (((480, 1440), True), ((480, 480), False)):
        grown = {m: GrowthTest(predictions=table, n_train=n) for m, n in zip((0.0, 0.6), sizes, strict=True)}
        found = evaluated(predictions_of(150, seed=15), Evidence(by_growth=grown))
        assert any("mix training sizes" in each for each in found.warnings) is warned
        assert tuple(each.n_train for each in found.pretext_gains) == sizes
        assert f"| {sizes[1]} |" in gains_table(found.pretext_gains)


def planted(value: float, *, control: bool) -> ConfoundFigure:
    """Return what gaps alone tell, as drawn or where suspicion was made to shorten them."""
    return ConfoundFigure(
        test="gap only",
        condition="gaps",
        figure="AUROC",
        estimate=Estimate(value=value, lower=value - 0.03, upper=value + 0.03),
        n=3000,
        planted_leak=control,
    )


def test_a_leak_put_there_on_purpose_must_be_found_and_is_told_from_one_of_the_test() -> None:
    """A control that works is no leak of the test; one that is not found fails; a real leak warns as before."""
    clean, leaky = predictions_of(300, seed=2), predictions_of(300, seed=3, gap_per_growth=-0.4)
    works = evaluated(clean, Evidence(confounds=(planted(0.7, control=True),))).warnings
    assert any(each.startswith("positive control works: LEAK found") for each in works)
    assert not any("test: LEAK" in each for each in works)
    fails = evaluated(clean, Evidence(confounds=(planted(0.5, control=True),))).warnings
    assert any(each.startswith("positive control FAILS") for each in fails)
    real = evaluated(leaky, Evidence(confounds=(planted(0.7, control=True),))).warnings
    assert any(each.startswith("test: LEAK: gap only") for each in real)


def test_thicker_slices_cost_what_their_answers_lose() -> None:
    """The same answers lose nothing, noisier ones the difference of their AUROC, on the same patients."""
    test = predictions_of(300, seed=6)
    rng = np.random.default_rng(0)
    noisy = test.logits["order"] + 2 * rng.standard_normal(test.logits["order"].shape[1:])
    thick = [
        ThickSlices(slice_mm=mm, sd_voxels=0.1, logits=each) for mm, each in ((3, test.logits["order"]), (7, noisy))
    ]
    same, worse = evaluated(test, Evidence(thick_slices=tuple(thick))).slice_losses
    assert same.loss.value == same.loss.lower == same.loss.upper == 0
    arms = {arm.name: arm.auroc.value for arm in evaluated(test).test.arms}
    assert worse.loss.value == pytest.approx(arms["order"] - worse.auroc.value)
    assert worse.loss.lower > 0
    wrong = ThickSlices(slice_mm=7, sd_voxels=0.1, logits=noisy[:, :, :9])
    with pytest.raises(ValueError, match="slices of 7 mm: expected 300 patients, found 9"):
        evaluated(test, Evidence(thick_slices=(wrong,)))


def test_shipped_thresholds_are_scored_as_they_are(plain: Evaluation) -> None:
    """Validation fixes rule-out and rule-in unless a bundle's own thresholds are handed in; the best F1 stays."""
    shipped = Threshold(name="shipped", value=0.37)
    found = evaluated(predictions_of(780, seed=2), Evidence(thresholds=(shipped,)))
    assert [each.name for each in plain.operating_points] == ["best F1", "rule-out", "rule-in"]
    assert [(each.name, each.threshold) for each in found.operating_points[1:]] == [("shipped", 0.37)]
    assert found.operating_points[0] == plain.operating_points[0]


def test_groups_partition_the_patients(plain: Evaluation) -> None:
    """By site, sex, age and number of scans, each patient once."""
    for kind in ("site", "sex", "age", "scans"):
        assert sum(each.n_patients for each in plain.groups if each.kind == kind) == plain.test.n_patients


def test_a_group_without_enough_of_either_class_has_no_figure() -> None:
    """Three patients of one site are counted, not scored."""
    test = predictions_of(100, seed=16)
    sites = test.sites.copy()
    sites[:3] = "tiny"
    tiny = next(each for each in evaluated(replace(test, sites=sites)).groups if each.group == "tiny")
    assert tiny.auroc is None


def test_abstention_uses_what_is_given_and_needs_more_than_one_seed_otherwise() -> None:
    """One seed has no spread; an uncertainty of the wrong length is refused; a useless one is called so."""
    test = predictions_of(200, seed=17, seeds=1)
    assert evaluated(test).coverage == ()
    given = evaluated(test, Evidence(uncertainty=np.random.default_rng(0).random(200)))
    assert [point.coverage for point in given.coverage][-1] == 1.0
    with pytest.raises(ValueError, match="each of 200 patients"):
        evaluated(test, Evidence(uncertainty=np.zeros(7)))
    chances = as_they_are(6, test.logits["order"].mean(axis=0)[5])
    backwards = evaluated(test, Evidence(uncertainty=np.abs(chances - 0.3)))
    assert any("abstention does not help" in each for each in backwards.warnings)


def test_patients_used_before_are_refused() -> None:
    """Whether they come from training or validation, of the internal or the shifted test."""
    test, other = predictions_of(80, seed=18), predictions_of(80, seed=19, population="shifted")
    with pytest.raises(ValueError, match="never used before, found 80 of 'test'"):
        evaluated(test, Evidence(training=test))
    with pytest.raises(ValueError, match="shifted: expected patients never used before"):
        evaluated(test, Evidence(training=other, shifted=(other,)))


def test_other_populations_get_the_same_table_with_what_validation_fixed() -> None:
    """Another population is scored by the same thresholds and warned about under its own name."""
    shifted = predictions_of(300, seed=20, population="shifted", gap_per_growth=0.5)
    found = evaluated(predictions_of(150, seed=21), Evidence(shifted=(shifted,)))
    assert [each.name for each in found.shifted] == ["shifted"]
    assert len(found.shifted[0].arms) == len(found.test.arms)
    assert any(each.startswith("shifted: LEAK: gap only") for each in found.warnings)


def test_missing_arms_and_one_class_are_refused_by_name() -> None:
    """The message says what was expected and found."""
    test = predictions_of(100, seed=22)
    with pytest.raises(ValueError, match="expected arm 'best'"):
        evaluated(test, plan=replace(PLAN, delivered="best"))
    with pytest.raises(ValueError, match="found 0 events in 100 patients"):
        evaluated(replace(test, labels=np.zeros(100, dtype=np.int8)))
    silent = {name: np.full_like(each, np.nan) for name, each in test.logits.items()}
    with pytest.raises(ValueError, match="says nothing of"):
        evaluated(replace(test, logits=silent))
    with pytest.raises(ValueError, match="prevalence between 0 and 1"):
        replace(PLAN, prevalence=1.0)


def test_figures_after_the_first_opening_are_called_so() -> None:
    """The number of openings is part of the evaluation."""
    opening = Opening(number=3, opened_at="2026-01-01T00:00:00+00:00", command="c", reason="r", digest="d")
    found = evaluated(predictions_of(100, seed=23), Evidence(openings=(opening,)))
    assert any("opened 3 times" in each for each in found.warnings)


def test_the_same_table_gives_the_same_figures() -> None:
    """Everything drawn is drawn from the plan's seed."""
    test = predictions_of(100, seed=24)
    assert evaluated(test).test.arms == evaluated(test).test.arms
    other = evaluated(test, plan=replace(PLAN, sampling=Sampling(resamples=300, seed=1)))
    assert evaluated(test).test.arms != other.test.arms

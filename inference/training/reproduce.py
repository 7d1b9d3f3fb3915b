"""The whole experiment, from nothing to the bundle that ships: every figure of the model card comes from here.

Render, train all arms, ask what the pretext learns from, choose on validation, fit trust on calibration patients, open
the locked tests once and on record, write the report, write the bundle with its card, check its saliency.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

import numpy as np

from inference.bundle_files import read_metadata
from inference.bundle_parts import SaliencyEvidence
from inference.evaluation.arms import GrowthTest
from inference.evaluation.bootstrap import Sampling
from inference.evaluation.calibration import calibrate
from inference.evaluation.card import Development, model_card
from inference.evaluation.evaluate import Evidence, Plan, evaluate
from inference.evaluation.locked import open_locked
from inference.evaluation.predictions import LENGTHS
from inference.evaluation.report import write_report
from inference.evaluation.saliency_checks import phantom_cases
from inference.evaluation.saliency_report import check_cases, write_saliency_check
from inference.evaluation.slice_losses import ThickSlices
from inference.evaluation.trust import LastScans, operating_points
from inference.phantom import Dials, bayes_ceiling, on_real_head
from inference.phantom.protocol import source_digest
from inference.saliency import Method
from inference.selection import SelectionRule
from inference.training.answers import one_dropped_logits
from inference.training.arms import Arm
from inference.training.confound_runs import confound_figures
from inference.training.experiment import GROWTH_ARMS, MAIN_ARMS, in_fold
from inference.training.leak_controls import leak_controls
from inference.training.presets import PhantomGroup
from inference.training.reading import encode_cohort
from inference.training.release import About, ensemble_and_trust, release, scores_of, write_card
from inference.training.thick_slices import SLICES_MM, sd_voxels
from inference.training.work_folder import bind, real_head_digest

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from numpy.typing import NDArray

    from inference.bundle_files import Score
    from inference.bundle_parts import OperatingPoint
    from inference.evaluation.evaluate import Evaluation
    from inference.evaluation.locked import Opening
    from inference.evaluation.trust import Trust
    from inference.models import Ensemble
    from inference.training.cohort import Cohort
    from inference.training.experiment import Experiment, Trained

VERSION = "0.2.0"
PREVALENCE = 0.3  # of events within the horizon, as the phantoms are drawn; declared before any test is opened
_CANDIDATES = (Arm.ORDER, Arm.SCRATCH)  # what may ship; the others are controls
_REAL_HEAD_FIRST_SEED = 550_000
# As phantoms are shown: the newest six; fewer than one patient in a thousand has a gap beyond these limits.
_SHOWN = SelectionRule(roles=("FLAIR",), kinds=("follow-up",), maximum=6, min_gap_days=14, max_gap_days=548)
_ARCHITECTURE = """\
{members} networks, each a 3-D ResNet18 for every scan, 8-head self-attention over scans, an LSTM and a linear layer.

Published: architecture, pretext, single-channel FLAIR, template registration, min-max, last 6 scans at most. Ours:
width 8 instead of 64, input 48 x 64 x 48 without its empty margin, stem of 5 voxels, LSTM of 128; an intensity window
that keeps what is brighter than 1.2 times the brain's mean; masks instead of zero padding; a residual around the
attention; standardised features; every truncation to the last 1 to 6 scans is a training example; AdamW with one cycle,
the heads refined on resting features; mirroring, and scanner effects per scan; an ensemble; Platt scaling by number of
scans. No volume, mask or date is ever a target or an input."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Final:
    """Leave to open the locked tests, and where the figures go."""

    reason: str
    report: Path
    real_head: Path | None = None  # folder of a real T1 for a second shifted test


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Chosen:
    """What validation chose, before any test is opened."""

    members: Mapping[Arm, list[Trained]]
    delivered: Arm
    ensemble: Ensemble
    trust: Trust


def choose(experiment: Experiment) -> Chosen:
    """Train all arms, choose what may ship by its members' mean validation score, and fit its trust.

    Raises:
        WorkFolderError: if the folder was made with another preset or generator.
    """
    bind(experiment.work, preset=asdict(experiment.preset), generator=source_digest())
    train, validation = experiment.preset.population("train"), experiment.preset.population("validation")
    members = experiment.members(MAIN_ARMS, train, validation)
    delivered = max(_CANDIDATES, key=lambda arm: float(np.mean([each.validation for each in members[arm]])))
    networks = [each.network for each in members[delivered]]
    ensemble, trust = ensemble_and_trust(networks, experiment.cohort(experiment.preset.population("calibration")))
    return Chosen(members=members, delivered=delivered, ensemble=ensemble, trust=trust)


def examine(experiment: Experiment, chosen: Chosen, final: Final) -> Evaluation:
    """Open the locked tests, once and on record, compute every figure and write the report.

    Raises:
        WorkFolderError: if the folder was made with another real head.
    """
    if final.real_head is not None:
        bind(experiment.work, real_head=real_head_digest(final.real_head))
    preset = experiment.preset
    test = preset.population("test")
    groups = [test, *_shifted(experiment, final)]
    by_growth, openings = _by_growth(experiment, final)  # trains, so it comes before the main tests are opened
    confounds = (
        *confound_figures(experiment),
        *leak_controls(resamples=preset.resamples, patients=min(1000, 50 * preset.confound_patients)),
    )
    tables = []
    for group in groups:
        experiment.cohort(group)
        openings.append(_open(experiment, group, final))
        tables.append(experiment.predictions(group, chosen.members))
    evaluation = evaluate(
        tables[0],
        validation=experiment.predictions(experiment.preset.population("validation"), chosen.members),
        calibrate=lambda n_scans, logits: calibrate(n_scans, logits, chosen.trust.calibration),
        ceilings={n_scans: bayes_ceiling(Dials(), n_scans) for n_scans in LENGTHS},
        plan=Plan(
            prevalence=PREVALENCE,
            synthetic=True,
            delivered=chosen.delivered,
            sampling=Sampling(resamples=experiment.preset.resamples),
        ),
        evidence=Evidence(
            training=experiment.predictions(experiment.preset.population("train"), {}),  # for what needs no network
            shifted=tuple(tables[1:]),
            by_growth=by_growth,
            thresholds=chosen.trust.thresholds,
            thick_slices=_thick_slices(experiment, chosen, test),
            one_scan_dropped=_one_dropped(experiment, chosen, test),
            confounds=confounds,
            openings=tuple(openings),
        ),
    )
    write_report(final.report, evaluation)
    return evaluation


def publish(experiment: Experiment, chosen: Chosen, evaluation: Evaluation | None, folder: Path, final: Final) -> str:
    """Check the saliency, write the bundle and its card; return the digest.

    Without an evaluation the bundle states no score.
    """
    training = experiment.cohort(experiment.preset.population("train"))
    check = check_cases(
        chosen.ensemble,
        phantom_cases(experiment.preset.saliency_patients, shape=chosen.ensemble.config.input_shape),
        methods=tuple(Method),
        data="synthetic phantoms",
    )
    points: tuple[OperatingPoint, ...] = ()
    scores: tuple[Score, ...] = ()
    if evaluation is not None:
        test = experiment.predictions(experiment.preset.population("test"), chosen.members)
        answers = LastScans(
            logits=test.logits[chosen.delivered].mean(axis=0), labels=test.labels, patients=test.patients
        )
        points, scores = operating_points(chosen.trust, answers, prevalence=PREVALENCE), scores_of(evaluation)
    about = _about(experiment, training, chosen)
    digest = release(
        folder,
        chosen.ensemble,
        chosen.trust,
        about,
        training=training,
        scores=scores,
        operating_points=points,
        saliency=SaliencyEvidence(**asdict(check.summary.verdict)),
    )
    write_saliency_check(final.report, check, bundle=digest)
    how = _development(experiment, chosen, final)
    write_card(folder, model_card(read_metadata(folder), how, evaluation=evaluation, saliency=check.summary))
    return digest


def _development(experiment: Experiment, chosen: Chosen, final: Final) -> Development:
    """Return what the card says of how the model came to be."""
    preset = experiment.preset
    names = ("train", "validation", "calibration", "test", "shifted")
    return Development(
        architecture=_ARCHITECTURE.format(members=preset.seeds),
        splits=", ".join(f"{name} {preset.population(name).patients}" for name in names)
        + " patients of disjoint seeds; each member leaves out another fifth of the training patients.",
        choice=(
            "Every arm was trained on the same patients, with the same number of updates. Each had "
            f"{len(preset.encoder_rates)} trials of the encoder's rate on validation, but for `{Arm.GAP}`, which takes "
            f"that of `{Arm.ORDER}`; `{chosen.delivered}` ships because its members score best there among "
            f"{' and '.join(f'`{arm}`' for arm in _CANDIDATES)}."
        ),
        validation={arm: tuple(each.validation for each in members) for arm, members in chosen.members.items()},
        command=f"python -m inference reproduce --preset {preset.name} --final '{final.reason}' "
        "--work WORK --out BUNDLE --report REPORT",
    )


def _about(experiment: Experiment, training: Cohort, chosen: Chosen) -> About:
    """Return what the shipped bundle says of itself."""
    recipe = "order pretext, then recurrence" if chosen.delivered is Arm.ORDER else "recurrence from random weights"
    return About(
        name="phantom_recurrence",
        version=VERSION,
        task="Risk of recurrence from serial post-operative FLAIR MRI (synthetic phantoms)",
        description=f"Ensemble of 3-D ResNet18, self-attention over scans, LSTM; {recipe}",
        authors="the temporal-dicom-node developers",
        copyright="Apache-2.0",
        intended_use=(
            "Research and software tests with synthetic phantoms only. Not a medical device; not for patients: "
            "its number says nothing about a human."
        ),
        training_data=(
            f"Synthetic phantoms only: {len(training)} patients, {len(training.volumes)} FLAIR volumes "
            f"rendered by inference.phantom (preset {experiment.preset.name})"
        ),
        synthetic_training_data=True,
        selection=_SHOWN,
        slice_thickness_mm=(1.0, 5.0),
    )


def _shifted(experiment: Experiment, final: Final) -> list[PhantomGroup]:
    """Return the populations that only the final evaluation looks at, beside the internal test."""
    shifted = experiment.preset.population("shifted")
    if final.real_head is None:
        return [shifted]
    on_head = PhantomGroup(
        name="shifted-real-head",
        first_seed=_REAL_HEAD_FIRST_SEED,
        patients=max(1, shifted.patients // 2),
        population=on_real_head(final.real_head),
    )
    return [shifted, on_head]


def _by_growth(experiment: Experiment, final: Final) -> tuple[dict[float, GrowthTest], list[Opening]]:
    """Return, for every mean growth, what arms trained on such patients answer about such patients, and the openings.

    Networks of all growths are trained on as many patients, so that gains differ by growth alone.
    """
    preset, tests, openings = experiment.preset, {}, []
    for growth in preset.growths:
        train, validation, test = (
            preset.growth_population(growth, purpose) for purpose in ("train", "validation", "test")
        )
        members = experiment.members(GROWTH_ARMS, train, validation)
        experiment.cohort(test)
        openings.append(_open(experiment, test, final))
        tests[growth] = GrowthTest(
            predictions=experiment.predictions(test, members), n_train=len(in_fold(train.patients, 0))
        )
    return tests, openings


def _thick_slices(experiment: Experiment, chosen: Chosen, test: PhantomGroup) -> tuple[ThickSlices, ...]:
    """Return what the delivered arm says of the test patients with thicker slices."""
    members = {chosen.delivered: chosen.members[chosen.delivered]}
    depth = chosen.ensemble.config.input_shape[0]
    return tuple(
        ThickSlices(
            slice_mm=slice_mm,
            sd_voxels=sd_voxels(slice_mm, depth),
            logits=experiment.predictions(test, members, slice_mm=slice_mm).logits[chosen.delivered],
        )
        for slice_mm in SLICES_MM
    )


def _open(experiment: Experiment, group: PhantomGroup, final: Final) -> Opening:
    """Open a locked population on record."""
    return open_locked(experiment.work / "cohorts" / group.name, final=True, reason=final.reason)


def _one_dropped(experiment: Experiment, chosen: Chosen, group: PhantomGroup) -> NDArray[np.float64]:
    """Return the delivered probabilities (6, P) with all scans but one."""
    cohort = experiment.cohort(group)
    features = encode_cohort(chosen.ensemble, cohort)
    logits = one_dropped_logits(chosen.ensemble, cohort, features)
    left = np.maximum(1, np.minimum(cohort.n_scans(), len(LENGTHS)) - 1)
    chances = np.full(logits.shape, np.nan)
    for n_scans in np.unique(left):
        chances[:, left == n_scans] = calibrate(int(n_scans), logits[:, left == n_scans], chosen.trust.calibration)
    return chances

"""What the order pretext learns from: the pretext again on scans without the lesion, and on nothing else.

A network that tells order from full scans is also asked about patients in whom nothing is directed in time, where it
must fail, and about patients seen by one machine, where it must not.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from inference.evaluation.bootstrap import Sampling, estimate
from inference.evaluation.confound_figures import ConfoundFigure
from inference.evaluation.confounds import Confound, render_confound_cohort
from inference.evaluation.resampled import areas, means
from inference.models.temporal import TemporalNetwork
from inference.phantom import SUSPICION_DIALS, Dials, draw_history
from inference.phantom.protocol import SEEDS
from inference.training.answers import order_accuracies
from inference.training.arms import Arm, configuration, order_schedule
from inference.training.cohort import is_written, open_cohort
from inference.training.fit import fit
from inference.training.lessons import order_lesson

if TYPE_CHECKING:
    from inference.training.cohort import Cohort
    from inference.training.experiment import Experiment

_TEST = "order pretext"
_LEARNT = {
    Confound.FULL: ("as rendered", None),
    Confound.LESION_MASKED: ("lesion masked alike in all visits, pretext retrained", None),
    Confound.LESION_ONLY: ("lesion only, pretext retrained", None),
}
_ASKED = {
    Confound.STABLE: ("nothing directed in time", (0.45, 0.55)),
    Confound.SAME_SCANNER: ("one machine for all visits", None),
}


def confound_figures(experiment: Experiment) -> tuple[ConfoundFigure, ...]:
    """Return order accuracies, each with an interval over patients, of networks trained for it here."""
    figures = []
    for kind, (condition, expected) in _LEARNT.items():
        network = _pretrained(experiment, kind)
        figures.append(_figure(experiment, network, kind, condition, expected))
        if kind is Confound.FULL:
            figures += [_figure(experiment, network, other, *told) for other, told in _ASKED.items()]
    return tuple(figures)


def leak_controls(*, patients: int = 3000, resamples: int) -> tuple[ConfoundFigure, ...]:
    """Return what the mean gap alone tells of the future: as drawn, and as suspicion would space visits.

    The second is a positive control: a report must warn of data like that. Drawn from latents, no image is rendered.
    """
    return tuple(
        _gap_only(condition, dials, expected, patients=patients, resamples=resamples)
        for condition, dials, expected in (
            ("gaps independent of growth", Dials(), (0.45, 0.55)),
            ("gaps shortened by suspicion (positive control)", SUSPICION_DIALS, (0.6, 1.0)),
        )
    )


def _gap_only(
    condition: str, dials: Dials, expected: tuple[float, float], *, patients: int, resamples: int
) -> ConfoundFigure:
    first = SEEDS["growth"][0]
    drawn = [draw_history(np.random.default_rng([seed, 0]), dials) for seed in range(first, first + patients)]
    known = [each for each in drawn if each.label is not None]
    gaps = np.array([np.mean(np.diff(each.visit_days)) for each in known])
    labels = np.array([bool(each.label) for each in known])
    area = estimate(areas(-gaps, labels, Sampling(resamples=resamples).counts(len(known))))
    return ConfoundFigure(
        test="gap only", condition=condition, figure="AUROC", estimate=area, n=len(known), expected=expected
    )


def _pretrained(experiment: Experiment, kind: Confound) -> TemporalNetwork:
    """Train the pretext on a variant of the training patients."""
    effort = experiment.preset.effort
    train, test = _cohort(experiment, kind, training=True), _cohort(experiment, kind, training=False)
    torch.manual_seed(0)
    network = TemporalNetwork(configuration(Arm.ORDER, effort))
    lesson = order_lesson(train, test.head(len(test) // 2), patients=np.arange(len(train)))
    return fit(network, lesson, order_schedule(effort, seed=0), experiment.session_for(f"confound-{kind}"))


def _figure(
    experiment: Experiment,
    network: TemporalNetwork,
    kind: Confound,
    condition: str,
    expected: tuple[float, float] | None,
) -> ConfoundFigure:
    shares = order_accuracies(network, _cohort(experiment, kind, training=False))
    counts = Sampling(resamples=experiment.preset.resamples).counts(len(shares))
    value = estimate(means(shares, counts))
    return ConfoundFigure(
        test=_TEST, condition=condition, figure="order accuracy", estimate=value, n=len(shares), expected=expected
    )


def _cohort(experiment: Experiment, kind: Confound, *, training: bool) -> Cohort:
    """Return the rendered patients of a variant."""
    count = experiment.preset.confound_patients
    first = SEEDS["confounds, training" if training else "confounds, test"][0]
    patients = count if training else max(4, count // 2)
    folder = experiment.work / "cohorts" / f"confound-{kind}-{'train' if training else 'test'}"
    if is_written(folder) and len(cohort := open_cohort(folder)) == patients:
        return cohort
    shape = configuration(Arm.ORDER, experiment.preset.effort).input_shape
    with experiment.bar(f"rendering {folder.name}", patients) as advance:
        return render_confound_cohort(folder, range(first, first + patients), kind=kind, shape=shape, advance=advance)

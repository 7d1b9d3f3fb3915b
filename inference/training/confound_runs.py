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
from inference.evaluation.resampled import means
from inference.models.temporal import TemporalNetwork
from inference.phantom.protocol import SEEDS
from inference.training.answers import order_accuracies
from inference.training.arms import Arm, configuration, order_schedule
from inference.training.experiment import kept
from inference.training.fit import fit
from inference.training.lessons import order_lesson

if TYPE_CHECKING:
    from typing import Literal

    from inference.training.cohort import Cohort
    from inference.training.experiment import Experiment

    Purpose = Literal["train", "validation", "test"]

# Who chooses the pretext's epoch is not who is scored.
_FIRST_SEEDS = {
    "train": SEEDS["confounds, training"][0],
    "validation": SEEDS["confounds, training"][0] + 5000,
    "test": SEEDS["confounds, test"][0],
}
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


def _pretrained(experiment: Experiment, kind: Confound) -> TemporalNetwork:
    """Train the pretext on a variant of the training patients."""
    effort = experiment.preset.effort
    train, validation = (_cohort(experiment, kind, purpose) for purpose in ("train", "validation"))
    torch.manual_seed(0)
    network = TemporalNetwork(configuration(Arm.ORDER, effort))
    lesson = order_lesson(train, validation, patients=np.arange(len(train)))
    return fit(network, lesson, order_schedule(effort, seed=0), experiment.session_for(f"confound-{kind}"))


def _figure(
    experiment: Experiment,
    network: TemporalNetwork,
    kind: Confound,
    condition: str,
    expected: tuple[float, float] | None,
) -> ConfoundFigure:
    shares = order_accuracies(network, _cohort(experiment, kind, "test"))
    counts = Sampling(resamples=experiment.preset.resamples).counts(len(shares))
    value = estimate(means(shares, counts))
    return ConfoundFigure(
        test=_TEST, condition=condition, figure="order accuracy", estimate=value, n=len(shares), expected=expected
    )


def _cohort(experiment: Experiment, kind: Confound, purpose: Purpose) -> Cohort:
    """Return the rendered patients of a variant: those to learn from, to choose an epoch on, or to score."""
    count = experiment.preset.confound_patients
    seeds = range(_FIRST_SEEDS[purpose], _FIRST_SEEDS[purpose] + _of(count)[purpose])
    folder = experiment.work / "cohorts" / f"confound-{kind}-{purpose}"
    if (found := kept(folder, seeds)) is not None:
        return found
    shape = configuration(Arm.ORDER, experiment.preset.effort).input_shape
    with experiment.bar(f"rendering {folder.name}", len(seeds)) as advance:
        return render_confound_cohort(folder, seeds, kind=kind, shape=shape, advance=advance)


def _of(count: int) -> dict[str, int]:
    """Return how many patients serve each purpose."""
    return {"train": count, "validation": max(2, count // 4), "test": max(2, count // 2)}

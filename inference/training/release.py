"""Turn trained networks into a bundle that says what it is: an ensemble, its calibration and limits, its scores."""

from __future__ import annotations

from dataclasses import fields
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from pydantic import Field, model_validator

from inference.bundle import (
    CARD,
    Metadata,
    OutputDefinition,
    Score,
    TrainingRanges,
    definition_of,
    library_versions,
    save,
)
from inference.bundle_parts import ChosenThreshold, Part
from inference.evaluation.operating import reached
from inference.evaluation.trust import LastScans, fit_trust
from inference.models import SIZES, Ensemble
from inference.selection import SelectionRule
from inference.training.answers import last_scans_logits
from inference.training.cohort import MAX_SCANS
from inference.training.eligibility import EARLY_POST_OP, PRE_OP, UNKNOWN
from inference.training.known_patients import IN_BUNDLE
from inference.training.labels import HORIZON_DAYS
from inference.training.reading import cohort_block_means, encode_cohort

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from inference.bundle import Bundle
    from inference.bundle_parts import OperatingPoint, SaliencyEvidence
    from inference.evaluation.evaluate import Evaluation
    from inference.evaluation.operating import Threshold
    from inference.evaluation.predictions import Predictions
    from inference.evaluation.trust import Trust
    from inference.models import TemporalConfig, TemporalNetwork
    from inference.training.cohort import Cohort

OUTPUT = "recurrence_365d"
_NODE_KINDS = (PRE_OP, EARLY_POST_OP, "follow-up", UNKNOWN)
# Percentiles of the gaps that were seen in training; outside of them a run is flagged.
_GAP_PERCENTILES = (0.5, 99.5)


class About(Part):
    """What only people can say of a model; all of it stands in the metadata, most of it in every report."""

    name: str = Field(pattern=r"^[a-z][a-z0-9_]*$")
    version: str
    task: str
    description: str
    authors: str
    copyright: str
    intended_use: str
    training_data: str
    synthetic_training_data: bool
    template: str = "mni152"
    selection: SelectionRule  # which scans of a patient the networks were shown, in training and from now on
    slice_thickness_mm: tuple[float, float]  # that training saw

    @model_validator(mode="after")
    def _a_node_can_keep_it(self) -> About:
        """Refuse a rule that no node can go by."""
        rule = self.selection
        if len(rule.roles) != 1 or rule.maximum is None or not rule.kinds:
            msg = f"selection: expected one role, kinds and a maximum, found {rule.model_dump_json()}"
            raise ValueError(msg)
        if unknown := sorted(set(rule.kinds) - set(_NODE_KINDS)):
            msg = f"selection.kinds: expected kinds that a node tells ({', '.join(_NODE_KINDS)}), found "
            raise ValueError(f"{msg}{', '.join(unknown)}; prepare the scans with --kind follow-up")
        return self


def ensemble_and_trust(networks: Sequence[TemporalNetwork], calibration: Cohort) -> tuple[Ensemble, Trust]:
    """Return the networks as one, and what its answers are worth on patients that none of them has seen.

    Raises:
        ValueError: if the networks differ in shape or see no difference between scans, or the calibration patients are
            too few or of one outcome only.
    """
    ensemble = Ensemble.of(networks)
    features = encode_cohort(ensemble, calibration)
    if not bool((features != features[0]).any()):
        raise ValueError("ensemble: expected features that differ between scans, found the same of every scan")
    answers = LastScans(
        logits=last_scans_logits(ensemble, calibration, features),
        labels=calibration.labels,
        patients=calibration.patients,
    )
    whose = np.repeat(calibration.patients, calibration.n_scans())
    blocks = cohort_block_means(calibration)
    return ensemble, fit_trust(answers, features.numpy(), whose, encoders=len(networks), blocks=blocks)


def release(  # noqa: PLR0913 - what was trained, fitted, said, measured and checked comes from five places
    folder: Path,
    ensemble: Ensemble,
    trust: Trust,
    about: About,
    *,
    training: Cohort,
    scores: Sequence[Score] = (),
    operating_points: Sequence[OperatingPoint] = (),
    saliency: SaliencyEvidence | None = None,
) -> str:
    """Write the bundle and return its digest; the card is written apart, since scores may need the bundle.

    Raises:
        ValueError: if phantoms were trained on and the bundle is to say that it was patients.
    """
    if training.synthetic and not about.synthetic_training_data:
        raise ValueError(f"{about.name}: expected synthetic_training_data, for phantoms were trained on; found false")
    output = OutputDefinition(
        name=OUTPUT,
        meaning=f"recurrence or progression within {HORIZON_DAYS} days after the last scan",
        calibration=trust.calibration,
        conformal=trust.conformal,
        thresholds=tuple(
            ChosenThreshold(name=each.name, threshold=each.value, target=each.target) for each in trust.thresholds
        ),
        operating_points=tuple(operating_points),
    )
    metadata = Metadata(
        version=about.version,
        changelog={about.version: "see docs/README.md"},
        **library_versions(),
        name=about.name,
        task=about.task,
        description=about.description,
        authors=about.authors,
        copyright=about.copyright,
        intended_use=about.intended_use,
        network_data_format=_data_format(ensemble.config.input_shape, about.selection.roles),
        training_data=about.training_data,
        synthetic_training_data=about.synthetic_training_data,
        roles=about.selection.roles,
        input_shape=ensemble.config.input_shape,
        template=about.template,
        outputs=(output,),
        horizon_days=HORIZON_DAYS,
        training_ranges=training_ranges(training, about),
        selection=about.selection,
        novelty=trust.novelty.novelty,
        saliency=saliency,
        scores=tuple(scores),
    )
    definition = definition_of(ensemble, _size_of(ensemble.config))
    return save(folder, network=ensemble, definition=definition, metadata=metadata, known=trust.novelty.known)


def _size_of(config: TemporalConfig) -> Literal["small", "published"]:
    """Return the size whose shape a network has but for its width, heads and inputs."""
    own = {"width", "outputs", "members", "channels", "time_gap"}
    sizes: tuple[Literal["small", "published"], ...] = ("small", "published")
    for size in sizes:
        names = {each.name for each in fields(config)} - own
        if all(getattr(config, name) == getattr(SIZES[size], name) for name in names):
            return size
    raise ValueError(f"bundle: expected a network of size {' or '.join(SIZES)}, found {config}")


def write_card(folder: Path, text: str) -> None:
    """Write the model card, which the digest leaves out."""
    (folder / CARD).parent.mkdir(parents=True, exist_ok=True)
    (folder / CARD).write_text(text, encoding="utf-8")


def training_ranges(cohort: Cohort, about: About) -> TrainingRanges:
    """Return what the networks saw of gaps, slices and numbers of scans.

    Raises:
        ValueError: if nobody has two scans.
    """
    gaps = np.concatenate(
        [np.diff(cohort.days[scans.start : scans.stop]) for scans in map(cohort.scans, range(len(cohort)))]
    )
    if not len(gaps):
        raise ValueError("training ranges: expected patients with two scans or more, found one scan of each")
    low, high = np.percentile(gaps, _GAP_PERCENTILES)
    return TrainingRanges(
        gap_days=(float(np.floor(low)), float(np.ceil(high))),
        slice_thickness_mm=about.slice_thickness_mm,
        n_scans=(1, min(MAX_SCANS, int(cohort.n_scans().max()))),
    )


def scores_of(evaluation: Evaluation) -> tuple[Score, ...]:
    """Return the delivered arm's row of the curve over the number of scans; empty where there is no curve."""
    curve = evaluation.k_curve
    if curve is None:
        return ()
    return tuple(
        Score(
            n_scans=point.n_scans,
            n_patients=curve.n_patients,
            auroc=point.auroc.value,
            auroc_lower=point.auroc.lower,
            auroc_upper=point.auroc.upper,
            brier=point.brier,
            ece=point.ece,
            ceiling_auroc=point.ceiling,
        )
        for point in curve.points[evaluation.plan.delivered]
        if point.brier is not None and point.ece is not None
    )


def with_scores(
    bundle: Bundle, folder: Path, evaluation: Evaluation, test: Predictions, *, thresholds: Sequence[Threshold]
) -> str:
    """Write a bundle anew with its scores on the test and what its thresholds reached there; return the new digest.

    Whom it has seen goes along; the card is written apart.

    Raises:
        ValueError: if the test holds one outcome only.
    """
    delivered, output = test.logits[evaluation.plan.delivered].mean(axis=0), bundle.metadata.outputs[0]
    answers = LastScans(logits=delivered, labels=test.labels, patients=test.patients)
    final = answers.final(output.calibration)
    points = tuple(reached(each, *final, prevalence=evaluation.plan.prevalence) for each in thresholds)
    output = output.model_copy(update={"operating_points": points})
    metadata = bundle.metadata.model_copy(update={"scores": scores_of(evaluation), "outputs": (output,)})
    seen = bundle.folder / IN_BUNDLE
    told = seen.read_bytes() if seen.is_file() else None
    digest = save(folder, network=bundle.network, definition=bundle.definition, metadata=metadata, known=bundle.known)
    if told is not None:
        (folder / IN_BUNDLE).parent.mkdir(exist_ok=True)
        (folder / IN_BUNDLE).write_bytes(told)
    return digest


def _data_format(shape: tuple[int, int, int], roles: tuple[str, ...]) -> dict[str, Any]:
    """Return MONAI's description of input and output."""
    return {
        "inputs": {
            "image": {
                "type": "image",
                "format": "magnitude",
                "modality": "MR",
                "num_channels": len(roles),
                "spatial_shape": list(shape),
                "dtype": "float32",
                "value_range": [0, 1],
                "is_patch_data": False,
                "channel_def": {
                    str(place): f"{role}, one volume per scan, oldest first" for place, role in enumerate(roles)
                },
            }
        },
        "outputs": {
            "pred": {
                "type": "logits",
                "format": "classification",
                "num_channels": 1,
                "spatial_shape": [1],
                "dtype": "float32",
                "value_range": [],
                "is_patch_data": False,
                "channel_def": {"0": OUTPUT},
            }
        },
    }

"""What people say of a model, and what was fitted, ends in one bundle that loads and answers; a card says the rest."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from inference.bundle import load
from inference.bundle_parts import SaliencyEvidence, SaliencyMethod
from inference.evaluation.card import Development, model_card
from inference.models import SIZES, Ensemble, TemporalConfig, TemporalNetwork
from inference.selection import SelectionRule
from inference.training.release import About, ensemble_and_trust, release, write_card
from tests.factories.cohorts import cohort_of

TINY = TemporalConfig(width=2, input_shape=SIZES["small"].input_shape, hidden=128, stem_kernel=5, members=1)


def about(**changes: object) -> About:
    """Return what is said of a site's own model."""
    said: dict[str, object] = {
        "name": "our_recurrence",
        "version": "1.0.0",
        "task": "recurrence",
        "description": "two small networks",
        "authors": "a hospital",
        "copyright": "the hospital",
        "intended_use": "Research only.",
        "training_data": "40 patients of one hospital",
        "synthetic_training_data": False,
        "selection": SelectionRule(roles=("FLAIR",), kinds=("follow-up",), maximum=6),
        "slice_thickness_mm": (1.0, 5.0),
    }
    return About.model_validate(said | changes)


def test_a_released_ensemble_loads_and_says_what_it_is(tmp_path: Path) -> None:
    """Members, calibration by number of scans, novelty, the pinned rule; the card repeats none of it wrongly."""
    rng = np.random.default_rng(0)
    volumes = rng.integers(0, 255, (48, *SIZES["small"].input_shape), dtype=np.uint8)
    cohort = cohort_of(volumes, [range(-300, 1, 100)] * 12, [0, 1] * 6)
    torch.manual_seed(0)
    config = SIZES["small"]
    networks = [TemporalNetwork(TemporalConfig(**{**_fields(config), "width": 2})) for _ in range(2)]
    ensemble, trust = ensemble_and_trust(networks, cohort)
    checked = SaliencyEvidence(method=SaliencyMethod.OCCLUSION, delivered_by_default=False, evidence="too few cases")
    digest = release(tmp_path, ensemble, trust, about(), training=cohort, saliency=checked)
    how = Development(architecture="Two.", splits="Split.", choice="Chosen.", validation={}, command="make it")
    bundle = load(tmp_path, expected_digest=digest)
    write_card(tmp_path, model_card(bundle.metadata, how))

    assert bundle.definition.members == 2
    assert bundle.metadata.selection == about().selection
    assert bundle.metadata.saliency == checked
    fixed = {each.name: each.threshold for each in bundle.metadata.outputs[0].thresholds}
    assert fixed == {each.name: each.value for each in trust.thresholds}
    assert bundle.metadata.training_ranges.gap_days == (100, 100)
    assert bundle.metadata.training_ranges.n_scans == (1, 4)
    card = (tmp_path / "docs/README.md").read_text()
    assert "# our_recurrence 1.0.0" in card
    assert "synthetic" not in card.lower()
    assert "Not measured: the locked test was not opened" in card

    with pytest.raises(ValueError, match="phantoms were trained on"):
        release(tmp_path / "sold", ensemble, trust, about(), training=replace(cohort, synthetic=True))
    large = [TemporalNetwork(replace(SIZES["published"], width=2)) for _ in range(2)]
    release(tmp_path / "large", Ensemble.of(large), trust, about(), training=cohort)
    assert load(tmp_path / "large").definition.size == "published"


def test_networks_that_see_no_difference_are_refused() -> None:
    """Nothing can be said of what is new to them."""
    volumes = np.zeros((12, *TINY.input_shape), dtype=np.uint8)
    cohort = cohort_of(volumes, [[-100, 0]] * 6, [0, 1] * 3)
    with pytest.raises(ValueError, match="the same of every scan"):
        ensemble_and_trust([TemporalNetwork(TINY)], cohort)


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        (SelectionRule(roles=("FLAIR",), kinds=("post-op",), maximum=6), "expected kinds that a node tells"),
        (SelectionRule(roles=("FLAIR",), kinds=("follow-up",)), "a maximum"),
        (SelectionRule(kinds=("follow-up",), maximum=6), "expected one role"),
    ],
)
def test_a_rule_that_no_node_can_keep_is_refused(rule: SelectionRule, message: str) -> None:
    """A bundle pins it for every node that serves it."""
    with pytest.raises(ValidationError, match=message):
        about(selection=rule)


def test_a_name_that_is_no_folder_s_is_refused() -> None:
    """The name becomes a folder, a report's line and a log field."""
    with pytest.raises(ValidationError, match="name"):
        about(name="../Ours")


def _fields(config: TemporalConfig) -> dict[str, object]:
    return {name: getattr(config, name) for name in config.__slots__}

"""What people say of a model, and what was fitted, ends in one bundle that loads and answers; a card says the rest."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from inference.bundle import load
from inference.evaluation.card import Development, model_card
from inference.models import SIZES, TemporalConfig, TemporalNetwork
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
    digest = release(tmp_path, ensemble, trust, about(), training=cohort)
    how = Development(architecture="Two.", splits="Split.", choice="Chosen.", validation={}, command="make it")
    bundle = load(tmp_path, expected_digest=digest)
    write_card(tmp_path, model_card(bundle.metadata, how))

    assert bundle.definition.members == 2
    assert bundle.metadata.selection == about().selection
    assert bundle.metadata.training_ranges.gap_days == (100, 100)
    assert bundle.metadata.training_ranges.n_scans == (1, 4)
    card = (tmp_path / "docs/README.md").read_text()
    assert "# our_recurrence 1.0.0" in card
    assert "synthetic" not in card.lower()
    assert "Not measured: the locked test was not opened" in card


def test_a_name_that_is_no_folder_s_is_refused() -> None:
    """The name becomes a folder, a report's line and a log field."""
    with pytest.raises(ValidationError, match="name"):
        about(name="../Ours")


def _fields(config: TemporalConfig) -> dict[str, object]:
    return {name: getattr(config, name) for name in config.__slots__}

"""What was declared before training is still what the generator does."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict
from itertools import pairwise

import pytest

from inference.phantom import SUSPICION_DIALS, Dials
from inference.phantom.protocol import PROTOCOL, SEEDS, ceilings, rendered_samples, source_digest

DECLARED = json.loads(PROTOCOL.read_text(encoding="utf-8"))


def test_the_generator_is_the_declared_one() -> None:
    """No module of it changed since; if one did on purpose, `phantom-protocol` declares it anew, before training."""
    generator = DECLARED["generator"]
    assert generator["source_sha256"] == source_digest()
    parts = generator["source_sha256"] + "".join(each["sha256"] for each in generator["samples"])
    assert generator["digest"] == "sha256:" + hashlib.sha256(parts.encode()).hexdigest()


def test_its_sample_patients_look_the_same() -> None:
    """Means agree on any machine; bytes where its floating point does."""
    for declared, found in zip(DECLARED["generator"]["samples"], rendered_samples(), strict=True):
        assert declared["seed"] == found["seed"]
        assert declared["mean"] == pytest.approx(found["mean"], abs=0.05)


def test_the_dials_are_the_declared_ones() -> None:
    """The study's and those of the positive control."""
    assert DECLARED["dials"] == asdict(Dials())
    assert DECLARED["controls"]["suspicion"] == asdict(SUSPICION_DIALS)


def test_the_ceilings_are_the_declared_ones() -> None:
    """Recomputed with fewer patients; mean growth moves the order's ceiling and not the label's."""
    declared = {each["mean_growth_per_year"]: each for each in DECLARED["ceilings"]}
    assert set(declared) == {0.0, 0.6, 1.2}
    found = ceilings(0.6, patients=20_000)
    for name in ("bayes_auroc_by_scans", "order_accuracy_2_scans"):
        assert declared[0.6][name] == pytest.approx(found[name], abs=0.015)
    assert [declared[m]["order_accuracy_2_scans"]["larger is later"] for m in (0.0, 0.6, 1.2)] == pytest.approx(
        [0.50, 0.60, 0.69], abs=0.01
    )


def test_no_seed_serves_two_splits() -> None:
    """The declared ranges do not meet."""
    assert DECLARED["seeds"] == {name: list(ends) for name, ends in SEEDS.items()}
    assert all(one[1] < other[0] for one, other in pairwise(sorted(SEEDS.values())))

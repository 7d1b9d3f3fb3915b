"""What is fixed before anything is trained on phantoms: dials, generator, ceilings, and which seeds serve which split.

Synthetic phantoms only. `protocol.json` is written by `python -m inference phantom-protocol` and committed before the
training that it binds; a test recomputes what is cheap, so that a changed generator cannot pass for the declared one.
"""

from __future__ import annotations

import hashlib
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np

from inference.phantom.latents import (
    SITE_DIALS,
    SUSPICION_DIALS,
    UPGRADE_DIALS,
    WIDE_GAP_DIALS,
    Dials,
    bayes_ceiling,
    order_ceiling,
)
from inference.phantom.model_space import render_model_space
from inference.phantom.patient import make_patient
from inference.phantom.residuals import TABLE

PROTOCOL = Path(__file__).with_name("protocol.json")
MEAN_GROWTHS = (0.0, 0.6, 1.2)  # m, log-volume per year
SCAN_COUNTS = tuple(range(1, 7))
SAMPLE_SEEDS = (3, 11, 27)
SAMPLE_SHAPE = (24, 32, 24)
# First and last seed, both included. Seeds below 100000 are for tests and trials.
SEEDS = {
    "train": (100_000, 199_999),
    "validation": (200_000, 299_999),
    "calibration": (300_000, 399_999),
    "test": (400_000, 499_999),
    "shifted": (500_000, 599_999),
    "residuals and parity": (600_000, 649_999),
    "confounds, training": (650_000, 659_999),
    "confounds, test": (660_000, 669_999),
    "growth": (700_000, 799_999),
    "saliency": (810_000, 819_999),
}


def source_digest() -> str:
    """Return the SHA-256 over the generator: every module of the package but this one, and the measured residuals."""
    content = hashlib.sha256()
    for path in (*sorted(set(TABLE.parent.glob("*.py")) - {Path(__file__)}), TABLE):
        content.update(path.name.encode() + b"\0" + path.read_bytes())
    return content.hexdigest()


def rendered_samples() -> list[dict[str, object]]:
    """Return the digest of the last scan of each sample patient, as the 8 bits of a cohort, and its mean."""
    samples: list[dict[str, object]] = []
    for seed in SAMPLE_SEEDS:
        volume = np.rint(render_model_space(make_patient(seed), -1, shape=SAMPLE_SHAPE) * 255).astype(np.uint8)
        digest = hashlib.sha256(volume.tobytes()).hexdigest()
        samples.append({"seed": seed, "shape": SAMPLE_SHAPE, "sha256": digest, "mean": round(float(volume.mean()), 4)})
    return samples


def ceilings(mean_growth: float, *, patients: int = 100_000) -> dict[str, object]:
    """Return what ideal readers of the true volumes and dates reach at a mean growth."""
    dials = replace(Dials(), slope_mean_per_year=mean_growth)
    ideal, larger_is_later = order_ceiling(dials, patients=patients)
    return {
        "mean_growth_per_year": mean_growth,
        "bayes_auroc_by_scans": {
            str(count): round(bayes_ceiling(dials, count, patients=patients), 4) for count in SCAN_COUNTS
        },
        "order_accuracy_2_scans": {"ideal": round(ideal, 4), "larger is later": round(larger_is_later, 4)},
    }


def protocol() -> dict[str, object]:
    """Return everything that the file holds, as JSON values."""
    samples = rendered_samples()
    source = source_digest()
    whole = hashlib.sha256((source + "".join(str(each["sha256"]) for each in samples)).encode()).hexdigest()
    return {
        "about": "synthetic phantoms; python -m inference phantom-protocol",
        "generator": {"digest": f"sha256:{whole}", "source_sha256": source, "samples": samples},
        "seeds": {name: list(ends) for name, ends in SEEDS.items()},
        "dials": asdict(Dials()),
        "controls": {
            "suspicion": asdict(SUSPICION_DIALS),
            "upgrade": asdict(UPGRADE_DIALS),
            "site": asdict(SITE_DIALS),
            "wide gaps": asdict(WIDE_GAP_DIALS),
        },
        "ceilings": [ceilings(each) for each in MEAN_GROWTHS],
    }

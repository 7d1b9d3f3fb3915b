"""Does saliency show the true change? Maps of the newest scan beside references, on cases whose change is known.

Each case is a time line and the mask of what truly changed between its last two scans. Scored are the share of a map's
mass that lies inside the change, and the pointing game: whether the peak does. References: the difference image after
matching of intensities, every method on shuffled weights, and mass placed at random in the brain.

Source: pointing game, Zhang et al., Top-down Neural Attention by Excitation Backprop, 2016 (arXiv 1608.00507).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from inference.evaluation.saliency_sanity import randomised, rank_correlation
from inference.phantom import Dials, change_mask, make_patient, render_model_space
from inference.saliency import Method, attribute, change_image, to_map
from inference.training.phantoms import last_visits

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from numpy.typing import NDArray

    from inference.evaluation.saliency_sanity import TrainedT

    Maps = Mapping[str, NDArray[np.float32]]

IMAGE_DIFFERENCE = "image-difference"
RANDOM_PLACEMENT = "random-placement"
FIRST_SEED = 810_000  # of no split; the method of smoothing was chosen on seeds from 800,000
MIN_CHANGE_VOXELS = 8  # half a millilitre at 4 mm: less cannot be pointed at


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Case:
    """A time line in the model's space and what truly changed between its last two scans."""

    name: str
    volumes: NDArray[np.float32]  # (T, Z, Y, X), oldest first
    change: NDArray[np.bool_]  # (Z, Y, X)
    days: tuple[int, ...] | None = None  # when they were acquired, from any origin

    @property
    def brain(self) -> NDArray[np.bool_]:
        """Return where the newest scan is brain."""
        return np.asarray(self.volumes[-1] > 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Focus:
    """How much of a map lies inside the true change, and whether its peak does (a probability where it is random)."""

    share: float
    peak_inside: float


@dataclass(frozen=True, slots=True, kw_only=True)
class CaseRow:
    """What one case gave: every map's focus, and each method's rank correlation with its randomised twin."""

    case: str
    n_scans: int
    change_voxels: int
    brain_voxels: int
    focus: Mapping[str, Focus]
    rank_correlations: Mapping[str, float]


def randomised_name(method: Method) -> str:
    """Return the name of a method's reference: the same maps from shuffled weights."""
    return f"{method}, randomised weights"


def phantom_cases(
    patients: int, *, shape: tuple[int, int, int], first_seed: int = FIRST_SEED, dials: Dials | None = None
) -> Iterator[Case]:
    """Yield as many phantoms, from a seed on, as have a change that can be pointed at between their last two visits."""
    seed, found = first_seed, 0
    while found < patients:
        patient = make_patient(seed, dials=dials)
        newest = len(patient.visits) - 1
        change = change_mask(patient, newest - 1, newest, shape=shape)
        if change.sum() >= MIN_CHANGE_VOXELS:
            volumes = np.stack([render_model_space(patient, visit, shape=shape) for visit in last_visits(patient)])
            days = patient.history.visit_days[last_visits(patient).start :]
            yield Case(name=patient.patient_id, volumes=volumes, change=change, days=days)
            found += 1
        seed += 1


def saliency_maps(network: TrainedT, case: Case, methods: Sequence[Method], *, seed: int) -> Maps:
    """Return the maps (Z, Y, X) of the newest scan, 0 outside the brain: methods, their randomised twins, and |I2-I1|.

    Args:
        network: in evaluation mode, on the CPU.
        case: at least two scans.
        methods: those to compare.
        seed: of the shuffling.
    """
    volumes = torch.from_numpy(case.volumes)[:, None]  # (T, C, Z, Y, X)
    days = None if case.days is None else torch.tensor(case.days, dtype=torch.float32)
    maps = {IMAGE_DIFFERENCE: to_map(change_image(volumes[-2], volumes[-1]).numpy())}
    shuffled = randomised(network, seed=seed)
    with torch.no_grad():
        features, shuffled_features = network.encode(volumes), shuffled.encode(volumes)
    for method in methods:
        for name, model, known in (
            (str(method), network, features),
            (randomised_name(method), shuffled, shuffled_features),
        ):
            found = attribute(model, volumes[-1], known, len(volumes) - 1, method=method, older=volumes[-2], days=days)
            maps[name] = to_map(found.numpy())
    return {name: each * case.brain for name, each in maps.items()}


def score_case(case: Case, maps: Maps, methods: Sequence[Method]) -> CaseRow:
    """Compare the maps of a case with its true change."""
    brain, change = case.brain, case.change & case.brain
    by_chance = float(change.sum() / brain.sum())
    return CaseRow(
        case=case.name,
        n_scans=len(case.volumes),
        change_voxels=int(change.sum()),
        brain_voxels=int(brain.sum()),
        focus={
            **{name: _focus(each, change) for name, each in maps.items()},
            RANDOM_PLACEMENT: Focus(share=by_chance, peak_inside=by_chance),
        },
        rank_correlations={
            str(method): rank_correlation(maps[method][brain], maps[randomised_name(method)][brain])
            for method in methods
        },
    )


def _focus(found: NDArray[np.float32], change: NDArray[np.bool_]) -> Focus:
    """Return the focus of a map; an empty one points nowhere."""
    total = float(found.sum())
    if total == 0:
        return Focus(share=0.0, peak_inside=0.0)
    return Focus(share=float(found[change].sum()) / total, peak_inside=float(change.ravel()[found.argmax()]))

"""Run the saliency check on a bundle, and write what it gave: JSON for machines, one picture for eyes."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from inference.bundle import load
from inference.evaluation.saliency_checks import FIRST_SEED, phantom_cases, saliency_maps, score_case
from inference.evaluation.saliency_summary import Summary, summarise
from inference.saliency import Method

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from pathlib import Path

    from matplotlib.axes import Axes

    from inference.evaluation.saliency_checks import Case, CaseRow, Maps
    from inference.evaluation.saliency_sanity import Trained

ILLUSTRATION = (
    "Case illustration, not evidence: n = {n} pairs of real scans of another disease (multiple sclerosis), read by a "
    "network that was trained on something else."
)
_SYNTHETIC = "synthetic phantoms"
_SHOWN = 4
_DPI = 110


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class SaliencyCheck:
    """The rows, one a case, their summary, and the first cases with their maps to be shown."""

    rows: tuple[CaseRow, ...]
    summary: Summary
    shown: tuple[tuple[Case, Maps], ...]


def saliency_check(
    bundle_folder: Path,
    patients: int,
    *,
    methods: Sequence[Method] = tuple(Method),
    first_seed: int = FIRST_SEED,
    advance: Callable[[], None] = lambda: None,
) -> SaliencyCheck:
    """Check a bundle's saliency on phantoms that no split holds; `advance` is called after each patient.

    Raises:
        BundleError: if the bundle cannot be used.
        ValueError: if there is no patient.
    """
    bundle = load(bundle_folder)
    cases = phantom_cases(patients, shape=bundle.metadata.input_shape, first_seed=first_seed)
    return check_cases(bundle.network, cases, methods=methods, data=_SYNTHETIC, advance=advance)


def check_cases(
    network: Trained,
    cases: Iterable[Case],
    *,
    methods: Sequence[Method],
    data: str,
    advance: Callable[[], None] = lambda: None,
) -> SaliencyCheck:
    """Check a network's saliency on cases, each with weights shuffled anew.

    Raises:
        ValueError: if there is no case.
    """
    rows, shown = [], []
    for number, case in enumerate(cases):
        maps = saliency_maps(network, case, methods, seed=number)
        rows.append(score_case(case, maps, methods))
        if number < _SHOWN:
            shown.append((case, maps))
        advance()
    return SaliencyCheck(rows=tuple(rows), summary=summarise(rows, methods, data=data), shown=tuple(shown))


def write_saliency_check(
    folder: Path, check: SaliencyCheck, *, bundle: str, illustration: SaliencyCheck | None = None
) -> tuple[Path, ...]:
    """Write `saliency.json` and `saliency.png`, and a picture of the illustration; return their paths.

    Args:
        folder: made if it is missing.
        check: on phantoms.
        bundle: the digest of what was checked.
        illustration: the same on real pairs; it decides nothing.

    Raises:
        OSError: if the disk says no.
    """
    folder.mkdir(parents=True, exist_ok=True)
    content = {
        "data": _SYNTHETIC,
        "bundle": bundle,
        "saliency": asdict(check.summary.verdict),
        "summary": asdict(check.summary),
        "rows": [asdict(row) for row in check.rows],
    }
    written = [folder / "saliency.json", folder / "saliency.png"]
    draw_maps(written[1], check.shown, title=f"Saliency of the newest scan, {_SYNTHETIC}")
    if illustration is not None:
        note = ILLUSTRATION.format(n=len(illustration.rows))
        content["illustration"] = {
            "note": note,
            "shares": illustration.summary.shares,
            "peaks_inside": illustration.summary.peaks_inside,
            "rows": [asdict(row) for row in illustration.rows],
        }
        written.append(folder / "illustration.png")
        draw_maps(written[2], illustration.shown, title=note)
    written[0].write_text(json.dumps(content, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    return tuple(written)


def draw_maps(path: Path, shown: Sequence[tuple[Case, Maps]], *, title: str) -> None:
    """Draw one row a case: the slice with most change, the outline of the true change, and every map over the scan.

    Raises:
        OSError: if the picture cannot be written.
    """
    names = list(shown[0][1])
    figure = Figure(figsize=(2.1 * (len(names) + 1), 2.5 * len(shown) + 0.8), layout="constrained")
    grid = figure.subplots(len(shown), len(names) + 1, squeeze=False)
    for axes, (case, maps) in zip(grid, shown, strict=True):
        level = int(case.change.sum(axis=(1, 2)).argmax())
        _draw_slice(axes[0], case, level)
        axes[0].set_ylabel(case.name, fontsize=7)
        for each, name in zip(axes[1:], names, strict=True):
            _draw_slice(each, case, level)
            strength = maps[name][level]
            each.imshow(strength, cmap="inferno", alpha=np.clip(1.5 * strength, 0, 0.9), vmin=0, vmax=1)
    for each, name in zip(grid[0], ("newest scan, true change", *names), strict=True):
        each.set_title(name.replace(", ", ",\n"), fontsize=7)
    figure.suptitle(title, fontsize=8)
    FigureCanvasAgg(figure)
    figure.savefig(path, dpi=_DPI, metadata={"Software": None})


def _draw_slice(axes: Axes, case: Case, level: int) -> None:
    """Draw one axial slice, front upwards, with the outline of the true change."""
    axes.imshow(case.volumes[-1][level], cmap="gray", vmin=0, vmax=1)
    axes.contour(case.change[level].astype(float), levels=[0.5], colors="#56B4E9", linewidths=0.8)
    axes.set_xticks([])
    axes.set_yticks([])

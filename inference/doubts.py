"""What speaks against trusting an answer, and what the bundle wants done about it: a remark, or no answer at all."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from inference.bundle_parts import Rule
from inference.results import Abstention, AbstentionKind, QualityFlag

if TYPE_CHECKING:
    from collections.abc import Sequence

    from inference.bundle_parts import Conformal, Novelty
    from inference.results import Output

OUT_OF_DISTRIBUTION = "out-of-distribution"
BOTH_POSSIBLE = "both-answers-possible"
NEITHER_LIKELY = "neither-answer-likely"


@dataclass(frozen=True, slots=True, kw_only=True)
class Doubt:
    """A remark, and whether the bundle lets the run answer in spite of it."""

    flag: QualityFlag
    rule: Rule


def novelty_doubts(distances: Sequence[float], novelty: Novelty, *, skipped: int) -> list[Doubt]:
    """Return a doubt for every used scan that lies too far from what the model was calibrated on."""
    return [
        Doubt(
            flag=QualityFlag(
                code=OUT_OF_DISTRIBUTION,
                message=f"unlike the scans of the model's calibration (distance {each:.2f}, limit {novelty.limit:.2f})",
                time_point=skipped + place,
            ),
            rule=novelty.rule,
        )
        for place, each in enumerate(distances)
        if not each <= novelty.limit  # what is no number is unlike, too
    ]


def conformal_doubts(output: Output, conformal: Conformal | None) -> list[Doubt]:
    """Return a doubt where the primary output's conformal set holds both answers, or neither."""
    if conformal is None or output.possible is None or len(output.possible) == 1:
        return []
    share = f"{100 * conformal.coverage:.0f} %"
    if output.possible:
        flag = QualityFlag(code=BOTH_POSSIBLE, message=f"both answers are possible at {share} coverage")
        return [Doubt(flag=flag, rule=conformal.both)]
    flag = QualityFlag(code=NEITHER_LIKELY, message=f"neither answer is likely at {share} coverage")
    return [Doubt(flag=flag, rule=conformal.neither)]


def abstain(doubts: Sequence[Doubt], *, n_scans: int) -> Abstention | None:
    """Return why there is no answer, or None if no doubt forbids it; `n_scans` are those of the whole time line."""
    grave = [each.flag for each in doubts if each.rule is Rule.ABSTAIN]
    if not grave:
        return None
    return Abstention(
        kind=AbstentionKind.INDETERMINATE,
        code=grave[0].code,
        reason="; ".join(_placed(each, n_scans) for each in grave),
    )


def remarks(doubts: Sequence[Doubt]) -> list[QualityFlag]:
    """Return the doubts that stand beside an answer; those that forbid it are its reason instead."""
    return [each.flag for each in doubts if each.rule is Rule.FLAG]


def _placed(flag: QualityFlag, n_scans: int) -> str:
    return flag.message if flag.time_point is None else f"scan {flag.time_point + 1} of {n_scans} is {flag.message}"

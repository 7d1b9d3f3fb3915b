"""What speaks against trusting an answer, and what the bundle wants done about it: a remark, or no answer at all."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from inference.bundle_parts import Rule
from inference.results import Abstention, AbstentionKind, QualityFlag

if TYPE_CHECKING:
    from collections.abc import Sequence

    from inference.bundle_parts import Conformal
    from inference.results import Output

OUT_OF_DISTRIBUTION = "out-of-distribution"
BOTH_POSSIBLE = "both-answers-possible"
NEITHER_LIKELY = "neither-answer-likely"


@dataclass(frozen=True, slots=True, kw_only=True)
class Doubt:
    """A remark beside an answer, or the reason for none: the bundle's rule says which."""

    flag: QualityFlag
    reason: str
    rule: Rule


def novelty_doubts(beyond: Sequence[float], rule: Rule, *, skipped: int) -> list[Doubt]:
    """Return a doubt for every used scan that lies too far from what the model was calibrated on.

    `beyond` says how far each lies, in multiples of what the bundle allows. One reason names them all, by their numbers
    in the whole time line, of which the oldest `skipped` were not used.
    """
    # "not <=": a distance that is no number is strange, too
    unlike = "unlike the scans of the model's calibration"
    strange = {place: each for place, each in enumerate(beyond, start=skipped) if not each <= 1}
    numbers = ", ".join(str(place + 1) for place in strange)
    who = f"scan{'s' * (len(strange) > 1)} {numbers} of {skipped + len(beyond)}"
    farthest = f"up to {max(strange.values(), default=0):.2f} times the limit"
    return [
        Doubt(
            flag=QualityFlag(
                code=OUT_OF_DISTRIBUTION,
                message=f"{unlike} ({each:.2f} times the limit)",
                time_point=place,
            ),
            reason=f"{who}: {unlike} ({farthest})",
            rule=rule,
        )
        for place, each in strange.items()
    ]


def conformal_doubts(output: Output, conformal: Conformal | None) -> list[Doubt]:
    """Return a doubt where the primary output's conformal set holds both answers, or neither."""
    if conformal is None or output.possible is None or len(output.possible) == 1:
        return []
    share = f"{100 * conformal.coverage:.0f} % coverage"
    if output.possible:
        return [_of_the_run(BOTH_POSSIBLE, f"both answers are possible at {share}", conformal.both)]
    return [_of_the_run(NEITHER_LIKELY, f"neither answer is likely at {share}", conformal.neither)]


def _of_the_run(code: str, message: str, rule: Rule) -> Doubt:
    return Doubt(flag=QualityFlag(code=code, message=message), reason=message, rule=rule)


def abstain(doubts: Sequence[Doubt]) -> Abstention | None:
    """Return why there is no answer, or None if no doubt forbids it."""
    grave = [each for each in doubts if each.rule is Rule.ABSTAIN]
    if not grave:
        return None
    return Abstention(
        kind=AbstentionKind.INDETERMINATE,
        code=grave[0].flag.code,
        reason="; ".join(dict.fromkeys(each.reason for each in grave)),
    )


def remarks(doubts: Sequence[Doubt]) -> list[QualityFlag]:
    """Return the doubts that stand beside an answer; those that forbid it are its reason instead."""
    return [each.flag for each in doubts if each.rule is Rule.FLAG]

"""Whether a task shows its bundle the scans that the network was trained on.

A bundle pins the rule that its scans were chosen by. What no answer can stand on is a contradiction: another series, or
more scans than the network reads. Everything else that differs is told, and the hospital decides.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from dicom_node.timeline.choose import selection_rule
from inference.selection import SelectionRule

if TYPE_CHECKING:
    from collections.abc import Iterable

    from dicom_node.timeline.task import Task
    from inference.bundle_files import Metadata

UNSAID = "bundle: its metadata does not say by which rule scans were chosen in training (selection)"


def contradictions(task: Task, metadata: Metadata) -> list[str]:
    """Return what a task asks of its bundle that the bundle was not made for, both values named."""
    trained, asked = metadata.selection or _least(metadata), selection_rule(task)
    found = []
    if set(task.roles.wanted) != set(trained.roles):
        found.append(f"roles = {_words(task.roles.wanted)}: the bundle reads {_words(trained.roles)}")
    if _number(asked.maximum) > _number(trained.maximum):
        found.append(_maximum(asked, trained))
    return found


def differences(task: Task, metadata: Metadata) -> list[str]:
    """Return what else differs, both values named; that a bundle pins no rule is one remark."""
    trained, asked = metadata.selection, selection_rule(task)
    if trained is None:
        return [UNSAID]
    pairs = {
        "time_points.kinds": (_words(asked.kinds), _words(trained.kinds)),
        "time_points.choose": (asked.choose, trained.choose),
        "gates.min_gap_days": (asked.min_gap_days, trained.min_gap_days),
        "gates.max_gap_days": (_limit(asked.max_gap_days), _limit(trained.max_gap_days)),
    }
    found = [
        f"{key} = {ours}: the bundle was trained with {theirs}"
        for key, (ours, theirs) in pairs.items()
        if ours != theirs
    ]
    if _number(asked.maximum) < _number(trained.maximum):
        found.append(_maximum(asked, trained))
    return found


def _least(metadata: Metadata) -> SelectionRule:
    """Return what is known of a bundle that pins no rule."""
    return SelectionRule(roles=metadata.roles, maximum=metadata.most_scans)


def _maximum(asked: SelectionRule, trained: SelectionRule) -> str:
    return f"time_points.maximum = {asked.maximum}: the bundle was trained on at most {trained.maximum} scans"


def _words(values: Iterable[str]) -> str:
    return ", ".join(sorted(values)) or "any"


def _limit(days: int | None) -> str:
    return "no limit" if days is None else str(days)


def _number(maximum: int | None) -> float:
    return float("inf") if maximum is None else maximum

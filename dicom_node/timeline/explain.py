"""Everything behind a decision as plain dictionaries, ready for JSON: studies, series, every rule's verdict, choice.

For a person who asks about one patient or study: it holds descriptions and dates, so it must not be logged.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from dicom_node.timeline.decision import Due, UpToDate, Waiting

if TYPE_CHECKING:
    from datetime import date, time

    from dicom_node.timeline.choose import Choice
    from dicom_node.timeline.decision import Decision
    from dicom_node.timeline.model import Reason, Series, Study, TimeLine, TimePoint


def explain_time_line(time_line: TimeLine, choice: Choice | None = None) -> dict[str, Any]:
    """Explain every study; with a choice, also which time points go in."""
    return {
        "time_points": [_time_point(point, choice) for point in time_line.time_points],
        "undated": [explain_study(study) for study in time_line.undated],
    }


def explain_study(study: Study) -> dict[str, Any]:
    """Explain one study: every series, what it was taken for, and what each rule said."""
    return {
        "study_instance_uid": study.study_instance_uid,
        "acquired_on": _iso(study.acquired_on),
        "acquired_time": _iso(study.acquired_time),
        "series": [explain_series(each) for each in study.series],
    }


def explain_series(series: Series) -> dict[str, Any]:
    """Explain one series."""
    return {
        "series_instance_uid": series.series_instance_uid,
        "description": series.description,
        "part": series.part,
        "role": series.verdict.role,
        "is": series.verdict.name,
        "rule": series.verdict.rule,
        "acquired_on": _iso(series.acquired_on),
        "acquired_from": series.acquired_from,
        "instances": len(series.instances),
        "slices": series.slices,
        "spacing_mm": series.spacing_mm,
        "in_plane_mm": series.in_plane_mm,
        "coverage_mm": series.coverage_mm,
        "plane": series.plane,
        "incomplete": _reason(series.incomplete),
        "excluded": _reason(series.excluded),
        "rules": [asdict(each) for each in series.verdict.trace],
    }


def explain_decision(decision: Decision) -> dict[str, Any]:
    """Explain a decision in the words of the status page: its state, its reasons, what it needs or makes."""
    explained: dict[str, Any] = {
        "state": STATES[type(decision).__name__],
        "reasons": [asdict(each) for each in decision.reasons],
    }
    if isinstance(decision, Waiting):
        explained["next_check_at"] = decision.next_check_at and decision.next_check_at.isoformat()
        explained["missing"] = [[_iso(each.acquired_on), each.role] for each in decision.missing]
    if isinstance(decision, Due):
        explained["inputs"] = [each.isoformat() for each in decision.inputs.dates]
        explained["flags"] = [asdict(each) for each in decision.flags]
        explained["correction"] = decision.correction
    if isinstance(decision, Due | UpToDate):
        explained["run_key"] = decision.run_key
    return explained


STATES = {
    "Waiting": "waiting",
    "Due": "due",
    "Held": "held",
    "UpToDate": "up-to-date",
    "Ineligible": "ineligible",
    "Ended": "ended",
}


def _time_point(point: TimePoint, choice: Choice | None) -> dict[str, Any]:
    explained: dict[str, Any] = {
        "acquired_on": _iso(point.acquired_on),
        "kind": point.kind,
        "chosen": {str(role): series.series_instance_uid for role, series in sorted(point.chosen.items())},
        "candidates": [
            {
                "role": each.role,
                "rank": each.rank,
                "series_instance_uid": each.series.series_instance_uid,
                "because": each.because,
            }
            for each in point.candidates
        ],
        "flags": [asdict(each) for each in point.flags],
        "studies": [explain_study(study) for study in point.studies],
    }
    if choice is not None:
        left_out = [each.reason for each in choice.left_out if each.point is point]
        explained["used"] = any(each is point for each in choice.points)
        explained["left_out"] = _reason(left_out[0] if left_out else None)
    return explained


def _reason(reason: Reason | None) -> dict[str, str] | None:
    return None if reason is None else asdict(reason)


def _iso(moment: date | time | None) -> str | None:
    return None if moment is None else moment.isoformat()

"""A replay as plain data, for people and for `--json`.

The form is stable: `steps` (`at`, `occasion`, `instances`, `state`, `reasons` of `code` and `text`, `run_key`,
`inputs` as days, `version`, `predecessor`, `correction`, `flags`) and `final` (`state`, `reasons`, `run_key`, `inputs`
with kind, studies, series of every role and number of instances).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dicom_node.timeline.decision import Due, UpToDate
from dicom_node.work.judge import STATES

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from dicom_node.timeline.decision import Decision
    from dicom_node.timeline.model import Inputs, InputTimePoint, Reason
    from dicom_node.timeline.replay import Step


def replayed(steps: Sequence[Step]) -> dict[str, Any]:
    """Return the steps of one task and how they end; `final` is None where nothing was ever held."""
    return {"steps": [_step(each) for each in steps], "final": _final(steps[-1]) if steps else None}


def state_of(decision: Decision) -> str:
    """Return the state a case would be shown in."""
    if isinstance(decision, Due):
        return "due"
    return decision.reasons[0].code if isinstance(decision, UpToDate) else STATES[type(decision)].value


def _step(step: Step) -> dict[str, Any]:
    decision = step.decision
    due = decision if isinstance(decision, Due) else None
    return {
        "at": step.at,
        "occasion": step.occasion.value,
        "instances": step.instances,
        "state": state_of(decision),
        "reasons": _reasons(decision.reasons),
        "run_key": _run_key(decision),
        "inputs": list(step.inputs.dates) if step.inputs else [],
        "version": due.version if due else None,
        "predecessor": due.predecessor if due else None,
        "correction": due.correction if due else None,
        "flags": _reasons(due.flags) if due else [],
    }


def _final(step: Step) -> dict[str, Any]:
    return {
        "state": state_of(step.decision),
        "reasons": _reasons(step.decision.reasons),
        "run_key": _run_key(step.decision),
        "inputs": _inputs(step.inputs),
    }


def _inputs(inputs: Inputs | None) -> list[dict[str, Any]]:
    return [_time_point(each) for each in inputs.time_points] if inputs else []


def _time_point(point: InputTimePoint) -> dict[str, Any]:
    return {
        "acquired_on": point.acquired_on,
        "kind": point.kind.value,
        "studies": list(point.studies),
        "series": {each.role.value: each.series_instance_uid for each in point.series},
        "instances": sum(len(each.instances) for each in point.series),
    }


def _reasons(reasons: Iterable[Reason]) -> list[dict[str, str]]:
    return [{"code": each.code, "text": each.text} for each in reasons]


def _run_key(decision: Decision) -> str | None:
    return decision.run_key if isinstance(decision, Due | UpToDate) else None

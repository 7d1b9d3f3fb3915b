"""Whether the scans of a case are looked at at all: for whom the task is, and what a person must settle first."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dicom_node.timeline.choose import ending_event
from dicom_node.timeline.decision import Circumstances, Decision, Ended, Held, Ineligible, Waiting
from dicom_node.timeline.eligibility import why_ineligible
from dicom_node.timeline.identity import IdentityState
from dicom_node.timeline.model import Reason
from dicom_node.timeline.task import Requirement

if TYPE_CHECKING:
    from datetime import datetime

    from dicom_node.timeline.identity import Identity
    from dicom_node.timeline.model import CohortFacts, TimeLine
    from dicom_node.timeline.task import Task


def why_not_asked(
    time_line: TimeLine, task: Task, cohort: CohortFacts, now: datetime, circumstances: Circumstances
) -> Decision | None:
    """Ask what does not depend on the single scans; None: the scans may be looked at."""
    ineligible = why_ineligible(time_line, task, cohort, circumstances.patient, now.date())
    if ineligible:
        return Ineligible(reasons=ineligible)
    event = ending_event(task, cohort, now.date())
    if event is not None:
        return Ended(reasons=(Reason(code="event", text=f"{event.kind} on {event.on.isoformat()}"),))
    if circumstances.hold is not None:
        return Held(reasons=(circumstances.hold,))
    if circumstances.identity.state is not IdentityState.CLEAR:
        return Held(reasons=(_doubt(circumstances.identity),))
    if cohort.conflicts:
        return Held(reasons=cohort.conflicts)
    return _surgery(task, cohort)


def _doubt(identity: Identity) -> Reason:
    """Name the fields in which the studies of one patient differ, never their values."""
    fields = f"studies differ in {', '.join(identity.fields)}"
    if identity.state is IdentityState.ASK:
        return Reason(code="identity-name", text=f"{fields}; one human? then `patient accept`")
    advice = "see `patient show`, then `patient split` or `accept`"
    return Reason(code="identity-conflict", text=f"{fields}; {advice}")


def _surgery(task: Task, cohort: CohortFacts) -> Decision | None:
    if task.eligibility.surgery is not Requirement.REQUIRED:
        return None
    if not cohort.surgeries:
        return Waiting(reasons=(Reason(code="surgery-date-unknown", text="surgery date unknown"),))
    if not cohort.surgery_confirmed:
        days = ", ".join(each.on.isoformat() for each in cohort.surgeries)
        text = f"surgery date {days} from {cohort.surgery_source} is to be confirmed: `cohort confirm`"
        return Held(reasons=(Reason(code="surgery-date-unconfirmed", text=text),))
    return None

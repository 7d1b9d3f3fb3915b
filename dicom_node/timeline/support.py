"""Whether the reports that were issued still rest on images that are this patient's."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dicom_node.timeline.model import Reason, RunState

if TYPE_CHECKING:
    from collections.abc import Iterable

    from dicom_node.timeline.model import RunFacts, TimeLine


def unsupported_reports(time_line: TimeLine, runs: Iterable[RunFacts]) -> tuple[Reason, ...]:
    """Name the reports that rest on images no longer this patient's: rejected, or moved by a merge or split.

    A later report on the same newest time point that rests only on what is there takes the place of such a one.
    """
    reported = [run for run in runs if run.state is RunState.REPORTED]
    if not reported:
        return ()
    known = {
        instance.sop_instance_uid
        for study in time_line.studies
        for series in study.series
        for instance in series.instances
    }
    sound = [run for run in reported if run.instances <= known]
    return tuple(
        Reason(
            code="report-unsupported",
            text=f"report {run.version} up to {run.time_points[-1].isoformat()} rests on "
            f"{len(run.instances - known)} images that were rejected or are no longer this patient's: withdraw it",
        )
        for run in sorted(reported, key=lambda run: run.version)
        if not run.instances <= known
        and not any(each.version > run.version and each.time_points[-1] == run.time_points[-1] for each in sound)
    )

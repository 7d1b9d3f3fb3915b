"""What was known to happen after a scan: the leakage-safe label of a patient, of a prefix, of a landmark.

One rule for all of them: an event within the horizon after the newest scan that is shown is a yes; a patient known to
be free of it for the whole horizon is a no; anyone else is unknown and is neither trained on nor scored. Scans on or
after the event are never shown.

Source: the later practice of the group behind Tak et al., NEJM AI 2025 (repository LongitudinalEFS), re-implemented
from its description.
"""

from __future__ import annotations

HORIZON_DAYS = 365


def label_at(
    day: float, *, event_day: float | None, follow_up_day: float, horizon_days: int = HORIZON_DAYS
) -> bool | None:
    """Return whether an event followed within the horizon after `day`; None where nobody knows.

    Args:
        day: of the newest scan shown; all days count from one origin.
        event_day: of the first event, None where none was observed.
        follow_up_day: the last day on which the patient was known to be free of an event, or the event's own day.
        horizon_days: how far the question reaches.

    Raises:
        ValueError: if the scan does not lie before the event, or the event after the follow-up's end.
    """
    if event_day is not None:
        if day >= event_day:
            msg = f"label: expected scans before the event on day {event_day:g}, found one on day {day:g}"
            raise ValueError(msg)
        if event_day > follow_up_day:
            msg = f"label: expected the event by the end of follow-up on day {follow_up_day:g}, found day {event_day:g}"
            raise ValueError(msg)
        return event_day - day <= horizon_days
    return False if follow_up_day - day >= horizon_days else None

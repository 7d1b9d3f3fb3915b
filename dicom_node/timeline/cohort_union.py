"""One patient's cohort facts under several IDs, as after a merge: united where that is safe, told where it is not."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from dicom_node.timeline.model import CohortFacts, Reason

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from dicom_node.timeline.model import Surgery

DIAGNOSES_DIFFER: Final = "diagnoses-differ"
BIRTH_DATES_DIFFER: Final = "birth-dates-differ"


def unite_cohorts(recorded: Sequence[CohortFacts]) -> CohortFacts:
    """Unite what is recorded of one patient under each of the IDs, the surviving ID first.

    Days of surgery, radiotherapy and events are united, for an event under a retired ID ends surveillance as well.
    Diagnoses or birth dates that differ are not chosen from: the fact is unknown, and the reason says so.
    """
    if len(recorded) == 1:
        return recorded[0]
    diagnoses = {" ".join(each.diagnosis.split()).casefold(): each.diagnosis for each in reversed(recorded)}
    diagnoses.pop("", None)
    births = sorted({each.birth_date for each in recorded if each.birth_date is not None})
    conflicts = [reason for each in recorded for reason in each.conflicts]
    if len(diagnoses) > 1:
        text = f"diagnoses recorded under this patient's IDs differ: {', '.join(sorted(diagnoses.values()))}"
        conflicts.append(Reason(code=DIAGNOSES_DIFFER, text=text))
    if len(births) > 1:
        text = "birth dates recorded under this patient's IDs differ"
        conflicts.append(Reason(code=BIRTH_DATES_DIFFER, text=text))
    return CohortFacts(
        diagnosis=next(iter(diagnoses.values())) if len(diagnoses) == 1 else "",
        surgeries=_surgeries(surgery for each in recorded for surgery in each.surgeries),
        radiotherapy=tuple(sorted({day for each in recorded for day in each.radiotherapy})),
        events=tuple(
            sorted({event for each in recorded for event in each.events}, key=lambda event: (event.on, event.kind))
        ),
        birth_date=births[0] if len(births) == 1 else None,
        conflicts=tuple(conflicts),
    )


def _surgeries(recorded: Iterable[Surgery]) -> tuple[Surgery, ...]:
    """Unite surgeries in order of time; a day without time says nothing beside the same day with one."""
    found = set(recorded)
    timed = {each.on for each in found if each.at is not None}
    kept = [each for each in found if each.at is not None or each.on not in timed]
    return tuple(sorted(kept, key=lambda each: (each.on, str(each.at or ""))))

"""One patient's cohort facts under several IDs: united, and never guessed where they differ."""

from __future__ import annotations

from datetime import UTC, date, datetime, time

from dicom_node.timeline.build import build_time_line
from dicom_node.timeline.cohort_union import unite_cohorts
from dicom_node.timeline.eligibility import why_ineligible
from dicom_node.timeline.model import CohortFacts, Event, Surgery
from tests.factories.facts import GLIOMA, PATIENT, SELECTION, a_task, follow_ups

TODAY = datetime(2026, 1, 20, tzinfo=UTC).date()
LINE = build_time_line(follow_ups(date(2025, 4, 1)), selection=SELECTION, task=GLIOMA, cohort=CohortFacts())


def test_days_under_a_retired_id_count_for_the_patient() -> None:
    """Once each, in order; a surgery with its time replaces the same day without."""
    old = CohortFacts(
        diagnosis="Glioma",
        surgeries=(Surgery(on=date(2025, 1, 10)), Surgery(on=date(2024, 1, 1))),
        radiotherapy=(date(2025, 2, 1),),
        events=(Event(on=date(2025, 9, 1)),),
    )
    new = CohortFacts(
        diagnosis="glioma",
        surgeries=(Surgery(on=date(2025, 1, 10), at=time(13, 40)),),
        radiotherapy=(date(2025, 2, 1), date(2024, 3, 1)),
        birth_date=date(2010, 2, 3),
    )
    united = unite_cohorts([new, old])
    assert united == CohortFacts(
        diagnosis="glioma",
        surgeries=(Surgery(on=date(2024, 1, 1)), Surgery(on=date(2025, 1, 10), at=time(13, 40))),
        radiotherapy=(date(2024, 3, 1), date(2025, 2, 1)),
        events=(Event(on=date(2025, 9, 1)),),
        birth_date=date(2010, 2, 3),
    )


def test_one_record_is_returned_as_it_is() -> None:
    """Nothing is united where there is nothing to unite with."""
    alone = CohortFacts(diagnosis="glioma", surgery_source="elsewhere", surgery_confirmed=False)
    assert unite_cohorts([alone]) is alone


def test_differing_diagnoses_are_told_and_nobody_is_eligible() -> None:
    """A glioma that is a meningioma under the other number is for a person to settle."""
    united = unite_cohorts([CohortFacts(diagnosis="glioma"), CohortFacts(diagnosis="meningioma"), CohortFacts()])
    assert united.diagnosis == ""
    (reason,) = why_ineligible(LINE, GLIOMA, united, PATIENT, TODAY)
    assert reason.code == "diagnoses-differ"
    assert reason.text == "diagnoses recorded under this patient's IDs differ: glioma, meningioma"


def test_differing_birth_dates_count_only_where_the_age_decides() -> None:
    """The age is then unknown, whatever the images say; no date stands in the text."""
    births = (date(2010, 2, 3), date(1950, 2, 3))
    united = unite_cohorts([CohortFacts(diagnosis="glioma", birth_date=born) for born in births])
    assert united.birth_date is None
    assert why_ineligible(LINE, GLIOMA, united, PATIENT, TODAY) == ()
    (reason,) = why_ineligible(LINE, a_task(eligibility={"age_years": [0, 20]}), united, PATIENT, TODAY)
    assert (reason.code, reason.text) == (
        "birth-dates-differ",
        "birth dates recorded under this patient's IDs differ",
    )

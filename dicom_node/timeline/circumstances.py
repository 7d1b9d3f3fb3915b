"""From what is known of a patient to what a decision needs: one way for the node at work and for a replay."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Final

from dicom_node.timeline.decision import StudyClock
from dicom_node.timeline.model import PatientFacts, Reason

if TYPE_CHECKING:
    from collections.abc import Collection

    from dicom_node.timeline.model import InstanceFacts

BURST_PAUSE: Final = timedelta(minutes=10)


def subject(key: tuple[str, str], facts: Collection[InstanceFacts]) -> PatientFacts:
    """Return whom the case of a patient, (issuer, PatientID), is about: the demographics of the newest scan.

    A birth date that the newest scan leaves out is taken from the oldest that tells one. Without facts, all of them
    rejected perhaps, only the name of the case is known.
    """
    issuer, patient_id = key
    oldest_first = sorted(facts, key=lambda each: (str(each.acquired_on or ""), each.sop_instance_uid))
    if not oldest_first:
        return PatientFacts(issuer=issuer, patient_id=patient_id)
    newest = oldest_first[-1].patient
    told = next((each.patient.birth_date for each in oldest_first if each.patient.birth_date), "")
    return PatientFacts(
        issuer=issuer,
        patient_id=patient_id,
        birth_date=newest.birth_date or told,
        sex=newest.sex,
        phantom=all(each.patient.phantom for each in oldest_first),
    )


def contradiction(count: int) -> Reason | None:
    """Return why a case is held whose patient has `count` files that contradict an instance held, None without."""
    if count == 0:
        return None
    text = (
        f"{count} received instances contradict one with the same SOP Instance UID; `dicom-node patient accept PATIENT "
        "--instances old` keeps what is held, `--instances new` takes the newest in its place"
    )
    return Reason(code="instance-conflict", text=text)


def heard(clock: StudyClock | None, at: datetime) -> StudyClock:
    """Return a study's clock after one more of its instances arrived at `at`; None: the first.

    A pause longer than `BURST_PAUSE` begins a new burst, so that a late series is waited for anew.
    """
    if clock is None:
        return StudyClock(burst_started_at=at, last_received_at=at)
    anew = at - clock.last_received_at > BURST_PAUSE
    return StudyClock(
        burst_started_at=at if anew else min(clock.burst_started_at, at),
        last_received_at=max(clock.last_received_at, at),
    )

"""What the ledger knows of one patient at this moment, read once for all tasks, looks and explanations."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from dicom_node.ledger import identity, patients, priors, rejections
from dicom_node.timeline.build import build_time_line
from dicom_node.timeline.circumstances import subject
from dicom_node.timeline.identity import Identity, compare_patients
from dicom_node.timeline.model import CohortFacts, InstanceFacts, PatientFacts
from dicom_node.timeline.surgery_date import with_surgery_from_images

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from sqlalchemy import Connection

    from dicom_node.ledger.patients import Patient, StudyReception
    from dicom_node.timeline.model import TimeLine
    from dicom_node.timeline.selection import Selection
    from dicom_node.timeline.task import Task


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """One patient: `facts` without what rejection notes took out of use, `expected` instances per series."""

    patient: Patient
    facts: Sequence[InstanceFacts]
    rejected: frozenset[str]  # SOP Instance UIDs held and rejected
    cohort: CohortFacts
    received: Mapping[str, StudyReception]
    expected: Mapping[str, int]  # Series Instance UID -> how many instances an archive says it holds
    identity: Identity

    @property
    def held(self) -> bool:
        """Whether anything of this patient was received, used or rejected."""
        return bool(self.facts or self.rejected)

    @property
    def person(self) -> PatientFacts:
        """Whom the cases are about, with the demographics of the newest scan that says any."""
        return subject((self.patient.issuer, self.patient.patient_id), self.facts)

    def cohort_for(self, selection: Selection) -> CohortFacts:
        """Return the cohort, with the surgery date that the images tell by the site's rules where it has none."""
        return with_surgery_from_images(self.cohort, self.facts, selection.surgery_date)

    def time_line(self, task: Task, selection: Selection) -> TimeLine:
        """Build the time line as a task sees it."""
        cohort = self.cohort_for(selection)
        return build_time_line(self.facts, selection=selection, task=task, cohort=cohort, expected=self.expected)


def read_known(ledger: Connection, patient: Patient) -> Known:
    """Read everything known of a patient."""
    held = patients.facts_of(ledger, patient.row_id)
    rejected = rejections.rejected(ledger, patient.row_id)
    facts = [each for each in held if each.sop_instance_uid not in rejected]
    return Known(
        patient=patient,
        facts=facts,
        rejected=rejected & {each.sop_instance_uid for each in held},
        cohort=identity.cohort_of(ledger, patient.row_id),
        received=patients.receptions(ledger, patient.row_id),
        expected=priors.instance_counts(ledger, patient.row_id),
        identity=compare_patients(
            [*(each.patient for each in facts), *identity.stated(ledger, patient.row_id)],
            accepted=identity.accepted(ledger, patient.row_id),
        ),
    )

"""What an admin is shown: where everything stands and why, as plain data for people and for `--json`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dicom_node.ledger import arrivals, cases, deliveries, identity, patients, presence, priors, runs
from dicom_node.timeline.choose import choose_time_points
from dicom_node.timeline.explain import explain_time_line
from dicom_node.work.known import read_known
from inference.results import Result

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import date

    from sqlalchemy import Connection

    from dicom_node.ledger.patients import Patient
    from dicom_node.timeline.model import CohortFacts
    from dicom_node.timeline.selection import Selection
    from dicom_node.work.tasks import ServedTask


def status(ledger: Connection) -> dict[str, Any]:
    """Return every case with its reasons, and counts of files, runs, deliveries and refused callers."""
    return {
        "cases": [case for patient in patients.all_patients(ledger) for case in cases_of(ledger, patient)],
        "files": arrivals.counts_by_state(ledger),
        "set_aside": arrivals.set_aside_reasons(ledger),
        "runs": runs.counts_by_state(ledger),
        "deliveries": deliveries.counts_by_state(ledger),
        "refused": presence.refusals(ledger),
    }


def cases_of(ledger: Connection, patient: Patient) -> list[dict[str, Any]]:
    """Return a patient's cases, each with its state, its reasons and where its report stands."""
    return [
        {
            "issuer": patient.issuer,
            "patient_id": patient.patient_id,
            "task": case.task,
            "state": case.state.value,
            "reasons": [{"code": each.code, "text": each.text} for each in case.reasons],
            "run_key": case.run_key,
            "deliveries": [_delivery(each) for each in deliveries.of_run(ledger, case.run_key)] if case.run_key else [],
        }
        for case in cases.of_patient(ledger, patient.row_id)
    ]


def time_line(
    ledger: Connection, patient: Patient, tasks: Mapping[str, ServedTask], selection: Selection, today: date
) -> dict[str, Any]:
    """Return a patient's time points as each task sees them, the runs made of them, and the cases."""
    known = read_known(ledger, patient)
    recorded = known.cohort_for(selection)
    lines: dict[str, Any] = {}
    for name, served in tasks.items():
        line = known.time_line(served.task, selection)
        lines[name] = explain_time_line(line, choose_time_points(line, served.task, recorded, today))
    return {
        "issuer": patient.issuer,
        "patient_id": patient.patient_id,
        "also": [
            {"issuer": issuer, "patient_id": each} for issuer, each in identity.ids_of(ledger, patient.row_id)[1:]
        ],
        "identity": {"state": known.identity.state, "differs_in": list(known.identity.fields)},
        "cohort": _cohort(recorded),
        "rejected_instances": len(known.rejected),
        "tasks": lines,
        "cases": cases_of(ledger, patient),
        "priors": priors.summary(ledger, patient.row_id),
        "runs": [_run(each) for each in runs.of_patient(ledger, patient.row_id)],
    }


def study(line: Mapping[str, Any], study_instance_uid: str) -> dict[str, Any]:
    """Reduce a patient's `time_line` to one study: every series, each rule's verdict, every candidate, and why."""

    def concerns(point: Mapping[str, Any]) -> bool:
        return any(each["study_instance_uid"] == study_instance_uid for each in point.get("studies", [point]))

    return {
        "study_instance_uid": study_instance_uid,
        "tasks": {
            name: {kind: [each for each in points if concerns(each)] for kind, points in found.items()}
            for name, found in line["tasks"].items()
        },
        "cases": line["cases"],
    }


def _cohort(found: CohortFacts) -> dict[str, Any]:
    return {
        "diagnosis": found.diagnosis,
        "surgeries": [each.on for each in found.surgeries],
        "surgery_source": found.surgery_source,
        "surgery_confirmed": found.surgery_confirmed,
        "radiotherapy": list(found.radiotherapy),
        "events": [{"on": each.on, "kind": each.kind} for each in found.events],
    }


def _delivery(found: deliveries.Delivery) -> dict[str, Any]:
    return {
        "destination": found.destination,
        "state": found.state,
        "attempts": found.attempts,
        "sent_at": found.sent_at,
        "committed_at": found.committed_at,
        "report_class": found.report_class,
        "next_attempt_at": found.next_attempt_at if found.state in deliveries.OPEN_STATES else None,
        "error": found.error,
        "encoding": found.encoding,
    }


def _run(found: runs.Run) -> dict[str, Any]:
    abstention = None if found.result is None else Result.from_json(found.result).abstention
    return {
        "run_key": found.run_key,
        "task": found.task,
        "state": found.state.value,
        "version": found.version,
        "predecessor": found.predecessor,
        "time_points": list(found.inputs.dates),
        "created_at": found.created_at,
        "issued_at": found.issued_at,
        "abstention": abstention and {"code": abstention.kind.value, "reason": abstention.reason},
        "error": found.error,
        "encoding": found.encoding,
    }

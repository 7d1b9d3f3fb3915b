"""The pages that show: what is wrong at a glance, cases, deliveries, one patient's time line."""

from __future__ import annotations

from importlib.resources import files
from typing import TYPE_CHECKING, Any, Final

from werkzeug import Response
from werkzeug.exceptions import NotFound, ServiceUnavailable
from werkzeug.utils import redirect

from dicom_node.ledger import deliveries as ledger_deliveries
from dicom_node.ledger import identity, orders, patients, runs, survey
from dicom_node.ledger.cohort import subject
from dicom_node.ledger.tables import CaseState, DeliveryState
from dicom_node.observe import identities
from dicom_node.observe import overview as told
from dicom_node.timeline.model import RunState
from dicom_node.web.orders import MAY_RETRY
from dicom_node.web.strip import draw

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import Connection

    from dicom_node.ledger.patients import Patient
    from dicom_node.web.visit import Visit

ROWS: Final = 100  # of a list, on one page
SHOWN: Final = 12  # of what wants attention, on the first page
LONGEST_WAIT_S: Final = 10.0  # for another visitor's time line
DONE: Final = {
    "retry": "Will be tried again within a second.",
    "hold": "The case is held until it is released.",
    "release": "The case is released; it is decided anew within a second.",
}
NOT_FOUND: Final = "No patient here has this ID, or several of different issuers do: write ID^^^ISSUER."


def overview(visit: Visit) -> Response:
    """Show whether the node is well, and what wants a person."""
    parts = visit.parts
    vitals = parts.examination.vitals()
    with parts.database.read() as ledger:
        attention = survey.case_page(ledger, states=survey.ATTENTION, limit=SHOWN)
        dead = survey.delivery_page(ledger, states=(DeliveryState.DEAD,), limit=SHOWN)
        refusals = survey.refusals(ledger)
    states = [each.value for each in CaseState if any(state == each for _, state in vitals.cases)]
    return visit.page(
        "overview.html",
        title="Overview",
        refresh_s=_refresh(visit),
        vitals=vitals,
        peers=_peers(visit, [each.calling_ae_title for each in vitals.receptions]),
        attention=_named_cases(visit, attention),
        dead=_named_deliveries(visit, dead),
        refusals=refusals,
        states=states,
        tasks=sorted({task for task, _ in vitals.cases}),
    )


def cases(visit: Visit) -> Response:
    """List cases, those decided latest first."""
    state, task, start = visit.argument("state"), visit.argument("task"), visit.start()
    with visit.parts.database.read() as ledger:
        found = survey.case_page(ledger, states=[state] if state else (), task=task, start=start, limit=ROWS + 1)
    return visit.page(
        "cases.html",
        title="Cases",
        refresh_s=_refresh(visit),
        rows=_named_cases(visit, found[:ROWS]),
        state=state,
        task=task,
        states=[each.value for each in CaseState],
        tasks=sorted({*visit.parts.tasks, *([task] if task else [])}),
        problem=NOT_FOUND if visit.argument("found") == "none" else "",
        turning=_turning(start, len(found)),
    )


def deliveries(visit: Visit) -> Response:
    """List deliveries, the newest reports first."""
    state, start = visit.argument("state"), visit.start()
    with visit.parts.database.read() as ledger:
        found = survey.delivery_page(ledger, states=[state] if state else (), start=start, limit=ROWS + 1)
    return visit.page(
        "deliveries.html",
        title="Deliveries",
        refresh_s=_refresh(visit),
        rows=_named_deliveries(visit, found[:ROWS]),
        state=state,
        states=[each.value for each in DeliveryState],
        done=DONE.get(visit.argument("done") or "", ""),
        turning=_turning(start, len(found)),
    )


def find(visit: Visit) -> Response:
    """Go to the page of a patient by ID, or ID^^^ISSUER; the ID stays in the form and out of the address."""
    patient_id, _, issuer = visit.field("patient").partition("^^^")
    with visit.parts.database.read() as ledger:
        found = patients.find(ledger, patient_id, issuer or None) if patient_id else []
    if len(found) != 1:
        return redirect("/cases?found=none", 303)
    return redirect(f"/patient/{visit.parts.names.of(found[0])}", 303)


def patient(visit: Visit, pseudonym: str) -> Response:
    """Show one patient: cases, time line, runs, deliveries, what archives told, and who ordered what."""
    parts = visit.parts
    if not parts.one_time_line.acquire(timeout=LONGEST_WAIT_S):
        raise ServiceUnavailable(description="Other time lines are being read. Try again.")
    try:
        with parts.database.read() as ledger:
            found = parts.names.find(ledger, pseudonym)
            if found is None:
                raise NotFound
            if parts.names.of(found) != pseudonym:
                return redirect(f"/patient/{parts.names.of(found)}", 302)
            shown = _patient(visit, ledger, found)
    finally:
        parts.one_time_line.release()
    done = DONE.get(visit.argument("done") or "", "")
    return visit.page("patient.html", title=f"Patient {pseudonym}", pseudonym=pseudonym, done=done, **shown)


def home() -> Response:
    """Go to the first page."""
    return redirect("/", 303)


def style(_visit: Visit) -> Response:
    """Return the style sheet."""
    return _shipped("style.css", "text/css; charset=utf-8")


def icon(_visit: Visit) -> Response:
    """Return the icon."""
    return _shipped("icon.svg", "image/svg+xml")


def _patient(visit: Visit, ledger: Connection, found: Patient) -> dict[str, Any]:
    """Return everything that is shown of a patient."""
    parts = visit.parts
    line = told.time_line(ledger, found, parts.tasks, parts.selection, parts.clock().date())
    made = runs.of_patient(ledger, found.row_id)
    sent = [(run, each) for run in made for each in ledger_deliveries.of_run(ledger, run.run_key)]
    subjects = [subject(*key) for key in identity.ids_of(ledger, found.row_id)]
    subjects += [run.run_key for run in made] + [f"{run.run_key}/{each.destination}" for run, each in sent]
    return {
        "patient": found,
        "line": line,
        "person": identities.describe_identity(ledger, found),
        "strips": {name: draw(told_line["time_points"], line["cohort"]) for name, told_line in line["tasks"].items()},
        "standing": {case["task"]: orders.of_case(ledger, found.row_id, case["task"]) for case in line["cases"]},
        "sent": [(run, each, each.state in MAY_RETRY) for run, each in reversed(sent)],
        "failed": RunState.FAILED.value,
        "history": survey.orders_about(ledger, subjects),
    }


def _named_cases(visit: Visit, found: Sequence[survey.CaseOf]) -> list[dict[str, Any]]:
    return [
        {"patient": each.patient, "pseudonym": visit.parts.names.of(each.patient), "case": each.case} for each in found
    ]


def _named_deliveries(visit: Visit, found: Sequence[survey.DeliveryOf]) -> list[dict[str, Any]]:
    return [
        {
            "patient": each.patient,
            "pseudonym": visit.parts.names.of(each.patient),
            "task": each.task,
            "delivery": each.delivery,
            "may_retry": each.delivery.state in MAY_RETRY,
        }
        for each in found
    ]


def _peers(visit: Visit, heard: Sequence[str]) -> list[str]:
    """Return the configured peers that sent nothing lately."""
    return [each.ae_title for each in visit.parts.settings.receive.peers if each.ae_title not in heard]


def _refresh(visit: Visit) -> int | None:
    """Return after how many seconds a page loads itself anew; None where the visitor stopped that."""
    return None if visit.argument("refresh") == "off" else visit.parts.settings.web.refresh_s


def _turning(start: int, found: int) -> dict[str, int | None]:
    return {
        "start": start,
        "before": max(start - ROWS, 0) if start else None,
        "after": start + ROWS if found > ROWS else None,
    }


def _shipped(name: str, content_type: str) -> Response:
    content = files("dicom_node.web").joinpath("static", name).read_bytes()
    return Response(content, content_type=content_type)

"""`check --try FOLDER`: what the configured tasks and series rules would make of files. Nothing is stored or sent."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Any

from rich.console import Console

from dicom_node.cli_options import fail, print_json
from dicom_node.cli_series import print_rules, series_table
from dicom_node.errors import NodeError
from dicom_node.receive.reader import Reader
from dicom_node.timeline.build import build_time_line
from dicom_node.timeline.explain import explain_time_line
from dicom_node.timeline.model import CohortFacts, InstanceFacts

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from dicom_node.settings import Receive
    from dicom_node.timeline.selection import Selection
    from dicom_node.timeline.task import Task


def try_folder(folder: Path, tasks: Mapping[str, Task], selection: Selection, receive: Receive) -> dict[str, Any]:
    """Read every file as the node would, and explain each patient's time line for each task.

    Nothing is known of the patients but their images, so kinds of time points are unknown; what else a case needs
    (surgery, diagnosis, enough scans) is `replay --folder`'s to say.

    Returns:
        `patients` (each with `tasks`), and `unread`: files with the reason why they are no input.
    """
    patients: dict[tuple[str, str], list[InstanceFacts]] = defaultdict(list)
    unread = []
    with Reader(issuer_aliases=receive.issuer_aliases) as reader:
        for path in sorted(each for each in folder.rglob("*") if each.is_file()):
            answer = reader.read(path.resolve(), receive.default_issuer)
            if isinstance(answer, InstanceFacts):
                patients[answer.patient.key].append(answer)
            else:
                reason = getattr(answer, "reason", "a rejection note, not an image")
                unread.append({"file": str(path.relative_to(folder)), "reason": reason})
    return {
        "patients": [
            {
                "issuer": issuer,
                "patient_id": patient_id,
                "tasks": {name: _explain(facts, selection, task) for name, task in tasks.items()},
            }
            for (issuer, patient_id), facts in sorted(patients.items())
        ],
        "unread": unread,
    }


def show(found: Mapping[str, Any], *, with_rules: bool, as_json: bool) -> None:
    """Print what `try_folder` found; end with exit code 1 if there was no MR image at all."""
    if as_json:
        print_json(found)
    else:
        _print(Console(), found, with_rules=with_rules)
    if not found["patients"]:
        fail(NodeError("no MR image that can be read"))


def _explain(facts: list[InstanceFacts], selection: Selection, task: Task) -> dict[str, Any]:
    return explain_time_line(build_time_line(facts, selection=selection, task=task, cohort=CohortFacts()))


def _print(console: Console, found: Mapping[str, Any], *, with_rules: bool) -> None:
    for patient in found["patients"]:
        for name, line in patient["tasks"].items():
            for point in (*line["time_points"], *line["undated"]):
                console.print(
                    series_table(f"{patient['patient_id']}, {point['acquired_on'] or 'no date'}, {name}", point)
                )
        if with_rules and patient["tasks"]:  # the rules ask no task, so the first line shows them all
            print_rules(console, next(iter(patient["tasks"].values())))
    for each in found["unread"]:
        console.print(f"not used: {each['file']}: {each['reason']}", markup=False)

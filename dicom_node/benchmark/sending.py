"""Sending measured: a report with its saliency into Orthanc, by our sender and by DCMTK's storescu, in turn.

Once with Nagle's algorithm as Debian installs both, once with TCP_NODELAY=1 for both; our own sockets need no such
help. Saliency goes as one multi-frame object, as we send it, and as an object per slice, as many a system does. The
start of the process is part of storescu's time (about 20 ms), reading the files of both.
"""

from __future__ import annotations

import shutil
import time
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Final, get_args

from dicom_node.benchmark.figures import ratio, spread, there_and_back, told
from dicom_node.benchmark.report import Format, make_report
from dicom_node.benchmark.senders import storescu
from dicom_node.benchmark.servers import SENDER_AE, orthanc, serving
from dicom_node.deliver import dimse
from dicom_node.deliver.outcome import Verdict
from dicom_node.errors import UpstreamError
from dicom_node.settings import Dimse

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from dicom_node.benchmark.servers import Running
    from dicom_node.deliver.outcome import Load

OURS: Final = "ours"
STORESCU: Final = "storescu"
RECEIVERS: Final = {"as_installed": True, "nodelay": False}  # -> Nagle's algorithm
FORMATS: Final[tuple[Format, ...]] = get_args(Format)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sending:
    """One report sent."""

    sender: str
    receiver: str
    saliency: str
    round: int
    objects: int
    bytes: int
    seconds: float


def run(rounds: int, slices: int, folder: Path, say: Callable[[str], None]) -> list[Sending]:
    """Measure everything, in turn; the first round warms up and is left out.

    Raises:
        UpstreamError: if Orthanc does not take every object, or does not hold it at the end.
    """
    say("making reports")
    reports = {form: make_report(folder / "images" / form, slices, form) for form in FORMATS}
    cases = [(sender, receiver, form) for form in FORMATS for receiver in RECEIVERS for sender in (OURS, STORESCU)]
    found: list[Sending] = []
    with ExitStack() as stack:
        archives = {
            name: stack.enter_context(serving(orthanc(), folder / name, nagle=nagle))
            for name, nagle in RECEIVERS.items()
        }
        sent = dict.fromkeys(RECEIVERS, 0)
        for number in range(rounds + 1):
            for which, (sender, receiver, form) in enumerate(there_and_back(cases, number)):
                counter = number * len(cases) + which
                load = reports[form].written(folder / "outbox", counter)
                seconds = _send(sender, load, archives[receiver], nagle=RECEIVERS[receiver])
                sent[receiver] += len(load.parcels)
                if number > 0:
                    measured = Sending(
                        sender=sender,
                        receiver=receiver,
                        saliency=form,
                        round=number,
                        objects=len(load.parcels),
                        bytes=sum(each.path.stat().st_size for each in load.parcels),
                        seconds=seconds,
                    )
                    found.append(measured)
                    say(f"round {number}, {receiver}, {form}: {sender} {1000 * seconds:.0f} ms")
                shutil.rmtree(folder / "outbox")
        for name, archive in archives.items():
            _must_hold(archive, sent[name])
    return found


def _send(sender: str, load: Load, archive: Running, *, nagle: bool) -> float:
    if sender == STORESCU:
        return storescu(archive, [each.path for each in load.parcels], nagle=nagle, scan=False)
    destination = Dimse(ae_title=archive.server.ae_title, host="127.0.0.1", port=archive.port)
    began = time.monotonic()
    outcome = dimse.send(load, destination, SENDER_AE)
    seconds = time.monotonic() - began
    if outcome.verdict is not Verdict.DELIVERED:
        msg = (
            f"sending to {archive.server.name}: expected it delivered, found {outcome.verdict.value}: {outcome.reason}"
        )
        raise UpstreamError(msg)
    return seconds


def _must_hold(archive: Running, count: int) -> None:
    held = len(archive.files())
    if held != count:
        msg = f"{archive.server.name}: expected {count} objects, found {held}"
        raise UpstreamError(msg)


def summarize(rounds: Sequence[Sending]) -> dict[str, Any]:
    """Return the table in seconds, and our time over storescu's.

    `ratio` -> storescu -> how Orthanc is run -> the saliency of both; "report" is our multi-frame over its single
    frames, the way from many objects with Nagle's algorithm to one without.
    """

    def seconds(sender: str, receiver: str, form: str) -> list[float]:
        key = (sender, receiver, form)
        return [each.seconds for each in rounds if (each.sender, each.receiver, each.saliency) == key]

    def ratios(receiver: str) -> dict[str, float | None]:
        found: dict[str, float | None] = {
            form: ratio(seconds(OURS, receiver, form), seconds(STORESCU, receiver, form)) for form in FORMATS
        }
        found["report"] = ratio(seconds(OURS, receiver, "multi-frame"), seconds(STORESCU, receiver, "single-frame"))
        return found

    return {
        "seconds": {
            receiver: {
                form: {who: spread(seconds(who, receiver, form)) for who in (OURS, STORESCU)} for form in FORMATS
            }
            for receiver in RECEIVERS
        },
        "ratio": {STORESCU: {receiver: ratios(receiver) for receiver in RECEIVERS}},
        "rounds": [asdict(each) for each in rounds],
    }


def lines(summary: dict[str, Any]) -> list[tuple[str, list[list[str]]]]:
    """Return the table as its title and rows of cells."""
    rows = [["Orthanc", "saliency", "ours, s", "storescu, s", "ours/storescu"]]
    for receiver, forms in summary["seconds"].items():
        for form, cells in forms.items():
            found = summary["ratio"][STORESCU][receiver][form]
            rows.append([receiver, form, told(cells[OURS], 3), told(cells[STORESCU], 3), f"{found:.2f}"])
    for receiver, ratios in summary["ratio"][STORESCU].items():
        rows.append([receiver, "ours multi-, theirs single-frame", "", "", f"{ratios['report']:.2f}"])
    return [("a report with saliency sent to Orthanc", rows)]

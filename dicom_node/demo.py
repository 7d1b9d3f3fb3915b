"""`dicom-node demo`: a synthetic patient's studies through a real node into an archive, and the report back out of it.

Everything goes the way it goes in a hospital: C-STORE into a running `dicom-node run`, its ledger and worker, C-STORE
into the archive; the demo then asks the archive, not the node, for what the radiologist would open.
"""

from __future__ import annotations

import csv
import json
import random
import subprocess
import sys
import time
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np
import yaml
from matplotlib import image
from pydicom import dcmread
from pynetdicom import AE

from dicom_node.demo_pacs import Archive, embedded_archive, fetch, free_port, wait_for_echo
from dicom_node.demo_results import sent_to, tell_apart
from dicom_node.errors import NodeError, UpstreamError
from dicom_node.ledger.database import Database
from dicom_node.observe import overview
from dicom_node.requestor import PREPARED
from dicom_node.resources import task_file
from inference.phantom import make_patient
from inference.phantom.study import StudyOptions, patient_truth, write_study
from sr_templates.headers import to_bytes
from sr_templates.render_html import to_html

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from pydicom import Dataset

    from dicom_node.demo_results import DemoResults
    from dicom_node.ledger.runs import OutboxObject
    from inference.phantom import PhantomPatient

NODE_AE: Final = "TEMPORALNODE"
SENDER_AE: Final = "DEMOSCANNER"
ISSUER: Final = "PHANTOM"
PATIENT_SEED: Final = 27  # a lesion that grows
VISITS: Final = 4
ENHANCED_VISIT: Final = 2
NEWEST_DAYS_AGO: Final = 3
QUIET_PERIOD_S: Final = 3
TIMEOUT_S: Final = 240.0
DESTINATION: Final = "demo"


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoResult:
    """What the archive holds at the end, and the case as the node shows it."""

    patient: PhantomPatient
    report: Dataset
    saliency: Dataset
    summary: Dataset
    archive: Archive


def run_demo(
    out: Path, *, archive: Archive | None, task: str, say: Callable[[str], None], today: date | None = None
) -> DemoResult:
    """Play the whole story and leave its files in `out`.

    Raises:
        NodeError: if the case ends without a report, or without an answer that can be shown.
        UpstreamError: if the archive does not hold every object at the end.
    """
    out.mkdir(parents=True, exist_ok=True)
    today = today or date.today()  # noqa: DTZ011 - a scanner's calendar day
    with ExitStack() as stack:
        if archive is None:
            say("starting an embedded archive (pynetdicom qrscp)")
            archive = stack.enter_context(embedded_archive(out / "pacs"))
        say(f"making synthetic patient {PATIENT_SEED} with {VISITS} post-operative studies")
        patient = make_patient(PATIENT_SEED, n_visits=VISITS, last_visit=today - timedelta(days=NEWEST_DAYS_AGO))
        files = _write_studies(patient, out / "studies")
        config = _configure(out, archive, task)
        _import_cohort(patient, out, config)
        say("starting the node")
        port = yaml.safe_load(config.read_text(encoding="utf-8"))["node"]["port"]
        stack.enter_context(_node(config, out / "node.jsonl"))
        node = Archive(host="127.0.0.1", port=port, ae_title=NODE_AE)
        wait_for_echo(node, SENDER_AE)
        say(f"sending {len(files)} instances by C-STORE, in shuffled order")
        send(files, node, SENDER_AE)
        sent = _wait_for_report(out / "data" / "ledger.sqlite", say)
        say(f"asking {archive.ae_title} for the report")
        classes = sorted({each.sop_class_uid for each in sent})
        held = fetch(archive, NODE_AE, sent[-1].study_instance_uid, classes)
    found = tell_apart(sent, held)
    _leave_files(out, patient, found)
    return DemoResult(
        patient=patient, report=found.report, saliency=found.saliency, summary=found.summary, archive=archive
    )


def send(files: Sequence[Path], node: Archive, calling_ae_title: str, *, seed: int = 1) -> None:
    """Send files in shuffled order over one association, every status checked.

    Raises:
        UpstreamError: if the node refuses the association or an object.
    """
    shuffled = list(files)
    random.Random(seed).shuffle(shuffled)  # noqa: S311 - an order, not a secret
    ae = AE(ae_title=calling_ae_title)
    for sop_class, syntax in {_context(path) for path in shuffled}:
        ae.add_requested_context(sop_class, syntax)
    association = ae.associate(node.host, node.port, ae_title=node.ae_title, evt_handlers=[*PREPARED])
    if not association.is_established:
        msg = f"{node.ae_title} at {node.host}:{node.port} refused the association"
        raise UpstreamError(msg)
    for path in shuffled:
        status = association.send_c_store(dcmread(path))
        if "Status" not in status or status.Status != 0x0000:
            msg = f"C-STORE of {path.name}: expected status 0x0000, found {status.get('Status')}"
            raise UpstreamError(msg)
    association.release()


def _context(path: Path) -> tuple[str, str]:
    ds = dcmread(path, stop_before_pixels=True)
    return str(ds.SOPClassUID), str(ds.file_meta.TransferSyntaxUID)


def _write_studies(patient: PhantomPatient, folder: Path) -> list[Path]:
    """Write every visit as its scanner would: all four roles and a localizer, one visit as enhanced multi-frame."""
    files: list[Path] = []
    for visit in range(len(patient.visits)):
        options = StudyOptions(localizer=True, enhanced=visit == ENHANCED_VISIT, truth=False)
        files += write_study(patient, visit, folder / f"visit-{visit}", options)
    return files


def _configure(out: Path, archive: Archive, task: str) -> Path:
    """Write the node's configuration, the one that a reader may look at afterwards."""
    content = {
        "node": {"ae_title": NODE_AE, "host": "127.0.0.1", "port": free_port(), "data_dir": "data"},
        "receive": {
            "peers": [{"ae_title": SENDER_AE, "hosts": ["127.0.0.1"], "default_issuer": ISSUER}],
            "quiet_period_s": QUIET_PERIOD_S,
            "min_free_disk_gb": 0.5,
        },
        "pacs": [
            {
                "name": DESTINATION,
                "dimse": {"ae_title": archive.ae_title, "host": archive.host, "port": archive.port},
                "default_issuer": ISSUER,
            }
        ],
        "tasks": [task_with_maps(task, out).name],
        "logging": {"format": "json"},
    }
    path = out / "node.yaml"
    path.write_text(yaml.safe_dump(content, sort_keys=False), encoding="utf-8")
    return path


def task_with_maps(task: str, out: Path) -> Path:
    """Write the task with saliency asked for, so that a demo shows a map; its report says if maps passed no check."""
    file = task_file(task)
    content = yaml.safe_load(file.read_text(encoding="utf-8"))
    content["saliency"] = {**(content.get("saliency") or {}), "deliver": "always"}
    if content["bundle"].get("path"):
        content["bundle"]["path"] = str((file.parent / content["bundle"]["path"]).resolve())
    if str(content["report_template"]).endswith((".yaml", ".yml")):
        content["report_template"] = str((file.parent / content["report_template"]).resolve())
    path = out / "task.yaml"
    path.write_text(yaml.safe_dump(content, sort_keys=False, allow_unicode=True), encoding="utf-8")
    return path


def _import_cohort(patient: PhantomPatient, out: Path, config: Path) -> None:
    path = out / "cohort.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["patient_id", "issuer", "diagnosis", "surgeries"])
        writer.writerow([patient.patient_id, ISSUER, "glioma", patient.surgery.isoformat()])
    command = [sys.executable, "-m", "dicom_node", "cohort", "import", str(path), "--config", str(config)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)  # noqa: S603 - our own program


@contextmanager
def _node(config: Path, log: Path) -> Iterator[None]:
    """Run `dicom-node run` for as long as the block lasts, its log in a file."""
    command = [sys.executable, "-m", "dicom_node", "run", "--config", str(config)]
    with log.open("w", encoding="utf-8") as file, subprocess.Popen(command, stdout=file, stderr=file) as process:  # noqa: S603 - our own program
        try:
            yield
        finally:
            process.terminate()
            process.wait(timeout=90)


def _wait_for_report(ledger_path: Path, say: Callable[[str], None]) -> list[OutboxObject]:
    """Watch the case in the node's ledger until it is reported, telling each change; return what the archive took.

    Raises:
        NodeError: if it ends otherwise, or not in time.
    """
    told = ""
    deadline = time.monotonic() + TIMEOUT_S
    with closing(Database(f"sqlite:///{ledger_path}")) as database:
        while time.monotonic() < deadline:
            with database.read() as ledger:
                found = overview.status(ledger)["cases"]
                for case in found:
                    line = f"case {case['state']}: " + "; ".join(each["text"] for each in case["reasons"])
                    if line != told:
                        say(line)
                        told = line
                    if case["state"] == "reported":
                        return sent_to(ledger, case["run_key"], DESTINATION)
                    if case["state"] in {"failed", "ineligible", "ended"}:
                        msg = f"the demo's case ended as {line}"
                        raise NodeError(msg)
            time.sleep(0.5)
    msg = f"the demo's case was not reported within {TIMEOUT_S:.0f} s; last: {told or 'no case'}"
    raise NodeError(msg)


def _leave_files(out: Path, patient: PhantomPatient, found: DemoResults) -> None:
    """Write what came back from the archive."""
    (out / "report.dcm").write_bytes(to_bytes(found.report))
    (out / "saliency.dcm").write_bytes(to_bytes(found.saliency))
    (out / "report.html").write_text(to_html(found.report), encoding="utf-8")
    image.imsave(out / "summary.png", np.ascontiguousarray(found.summary.pixel_array))
    (out / "truth.json").write_text(json.dumps(patient_truth(patient), indent=2), encoding="utf-8")

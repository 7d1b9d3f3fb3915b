"""Nobody's identity leaves a node on the way from reception to reports: each of its processes works, archives fail.

The images, their headers and the cohort name a sentinel; log, process titles, names of files, results and the engine's
tables are searched for it. What goes to the archives names the patient, as it has to, and is not searched.
"""

from __future__ import annotations

from datetime import date, timedelta
from typing import TYPE_CHECKING

import pytest

from tests.factories.flair import flair_study
from tests.factories.sentinels import sentinels_in, shown_of
from tests.soak import promises
from tests.soak.patients import Patient, Study
from tests.soak.senders import Senders
from tests.soak.site import Site, processes, wait_until

if TYPE_CHECKING:
    from pathlib import Path

WHO = {
    "PatientID": "ZQXID-REPORTED",
    "PatientName": "ZQXNAME^ZQXGIVEN",
    "PatientBirthDate": "19370914",
    "AccessionNumber": "ZQXACC",
    "StudyDescription": "ZQXSTUDY of 14.09.1937",
    "ReferringPhysicianName": "ZQXPHYSICIAN^A",
    "InstitutionName": "ZQXHOSPITAL",
}


def a_patient(folder: Path) -> Patient:
    """Return a sentinel with as many studies as a report rests on."""
    today = date.today()  # noqa: DTZ011 - a scanner's calendar day
    studies = []
    for number in range(3):
        day = today - timedelta(days=300 - 100 * number)
        paths = flair_study(folder, day, name=f"zqx-{number}", **WHO)
        studies.append(Study(patient_id=WHO["PatientID"], number=number, paths=tuple(paths)))
    return Patient(patient_id=WHO["PatientID"], surgery=today - timedelta(days=500), studies=tuple(studies))


@pytest.mark.peer
def test_a_reported_patient_is_named_in_no_output(tmp_path: Path) -> None:
    """Received, read, inferred, encoded, delivered to two archives, one of whose associations in two fails."""
    patient, seen = a_patient(tmp_path / "images"), list[bytes]()
    site = Site(folder=tmp_path / "site", seed=1, failing=0.5)
    site.folder.mkdir()
    try:
        site.prepare([patient])
        site.start()
        senders = Senders(port=site.port, record=site.folder / "acknowledged.jsonl")
        senders.start()
        senders.put(patient.studies)

        def reported_and_looked_at() -> bool:
            assert site.process is not None
            seen.extend(shown_of(processes(site.process.pid)))
            return senders.idle and promises.quiet(site, [patient])

        wait_until("the reports to be at both archives", reported_and_looked_at, limit_s=300, every_s=0.5)
        senders.stop()
        site.stop()
    finally:
        site.close()
    held = list(site.folder.glob("archive-*/*.dcm"))
    assert len(held) == 6, "three objects in each archive"
    assert sentinels_in(held[0].read_bytes()), "what the archives hold does name the patient"
    texts = {
        "log": site.log.read_bytes(),
        "process titles": b"\0".join(seen),
        "names in the data folder": "\n".join(str(path) for path in site.data.rglob("*")).encode(),
        "engine": b"".join(path.read_bytes() for path in site.data.glob("engine.sqlite*")),
        "results": b"".join(path.read_bytes() for path in (site.data / "results").rglob("*") if path.is_file()),
    }
    assert {name: found for name, text in texts.items() if (found := sentinels_in(text))} == {}
    assert b"delivery.sent" in texts["log"]

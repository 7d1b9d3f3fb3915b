"""Invariant 4: any order, copies, interleaving and placement of ticks end in the same inputs, result and final report.

The ledger, the indexer's entry, the reconciler, the steps and the encoder are the real ones; the clock is the test's,
and the predictor, which a Protocol names, is a fake that answers from the content it is given. What happens is more
than arrivals: a series comes late, one study carries an ID that is merged later, one is rejected by a note, the cohort
says something only when it is asked, and another patient's images come in between.
"""

from __future__ import annotations

import tempfile
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import date, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dicom_node.ledger import cases, patients, runs
from dicom_node.ledger.tables import CaseState
from dicom_node.timeline.model import RunState
from tests.factories.bench import NOW, Bench
from tests.factories.flair import DAYS, flair_study

if TYPE_CHECKING:
    from collections.abc import Iterator

FAST = Path("/dev/shm") if Path("/dev/shm").is_dir() else None  # thousands of files, and durability is not the question
END = NOW + timedelta(days=1)
PAUSES_S = (0, 5, 61, 700)
Outcome = tuple[str, str, tuple[bytes, ...]]


@dataclass(frozen=True)
class Studies:
    """What is sent: by name, a file per slice."""

    files: dict[str, list[Path]]

    def part(self, sent: Sent) -> list[Path]:
        """Return the files of one association."""
        found = self.files[sent.name]
        return found[sent.part :: 2]


@dataclass(frozen=True)
class Sent:
    """One association, or one other thing that happens; `tick_after_s`: when the reconciler looks afterwards."""

    name: str  # of a study, or cohort, merge, reject
    part: int = 0  # every second slice from here on
    pause_s: int = 0
    tick_after_s: int | None = None


STUDIES = ("first", "second", "third", "fourth", "late", "stranger")
PLAIN = [Sent("cohort"), *(Sent(name, part) for name in STUDIES for part in (0, 1)), Sent("merge"), Sent("reject")]


@pytest.fixture(scope="module")
def studies(tmp_path_factory: pytest.TempPathFactory) -> Studies:
    """Five small FLAIR series of one synthetic patient, the second study under an old ID, and a stranger's one."""
    folder = tmp_path_factory.mktemp("studies")
    first, second, third, fourth = DAYS
    stranger = {"PatientID": "PHANTOM-2", "PatientName": "PHANTOM^2"}
    return Studies(
        files={
            "first": flair_study(folder, date(2025, 5, 5), name="rejected"),
            "second": flair_study(folder, first, name="old ID", PatientID="OLD-7"),
            "third": flair_study(folder, second, name="third"),
            "fourth": flair_study(folder, third, name="fourth"),
            "late": flair_study(folder, fourth, name="late", spacing_mm=6.0),
            "stranger": flair_study(folder, third, name="stranger", **stranger),
        }
    )


@contextmanager
def a_bench() -> Iterator[Bench]:
    """Give a fresh node that knows no cohort, in memory where there is such a folder."""
    with tempfile.TemporaryDirectory(dir=FAST) as folder:
        bench = Bench(Path(folder), cohort_known=False)
        try:
            yield bench
        finally:
            bench.database.close()


@st.composite
def ways(draw: st.DrawFn) -> list[Sent]:
    """Put everything in any order, some associations twice, with pauses and ticks anywhere."""
    again = draw(st.lists(st.sampled_from([each for each in PLAIN if each.name in STUDIES]), max_size=3))
    ticks = st.none() | st.sampled_from(PAUSES_S)
    return [
        replace(each, pause_s=draw(st.sampled_from(PAUSES_S)), tick_after_s=draw(ticks))
        for each in draw(st.permutations([*PLAIN, *again]))
    ]


def happen(bench: Bench, sent: Sent, studies: Studies) -> None:
    """Let one thing happen."""
    if sent.name == "cohort":
        bench.import_cohort("PHANTOM-1", "PHANTOM-2")
    elif sent.name == "merge":
        bench.merge("OLD-7", "PHANTOM-1")
    elif sent.name == "reject":
        bench.reject(*studies.files["first"])
    else:
        bench.receive(*studies.part(sent))


def live_through(bench: Bench, way: list[Sent], studies: Studies, *, moving: bool) -> None:
    """Let everything happen, on a clock that stands still or moves on, and look twice in the end."""
    for sent in way:
        bench.now += timedelta(seconds=sent.pause_s if moving else 0)
        happen(bench, sent, studies)
        if sent.tick_after_s is not None:
            bench.now += timedelta(seconds=sent.tick_after_s if moving else 0)
            bench.tick()
    for _ in range(2):
        bench.now = END
        bench.tick()


def reported(bench: Bench) -> list[runs.Run]:
    """Return the reports of the patient, in order of version."""
    with bench.database.read() as ledger:
        (patient,) = patients.find(ledger, "PHANTOM-1")
        made = runs.of_patient(ledger, patient.row_id)
    return sorted((run for run in made if run.state is RunState.REPORTED), key=lambda run: run.version or 0)


def final(bench: Bench, patient_id: str = "PHANTOM-1") -> cases.Case:
    """Return how a patient's case stands."""
    with bench.database.read() as ledger:
        (patient,) = patients.find(ledger, patient_id)
        (case,) = cases.of_patient(ledger, patient.row_id)
    return case


def outcome(bench: Bench, run: runs.Run) -> Outcome:
    """Return inputs, result and the objects' bytes of a report."""
    with bench.database.read() as ledger:
        objects = runs.objects_of(ledger, run.run_key)
    content = tuple((bench.folders.outbox / each.path).read_bytes() for each in objects)
    return run.inputs.to_json(), run.result or "", content


@pytest.fixture(scope="module")
def expected(studies: Studies) -> Outcome:
    """What the plainest order, oldest study first, ends in: one report of four scans."""
    with a_bench() as bench:
        live_through(bench, PLAIN, studies, moving=False)
        (only,) = reported(bench)
        assert only.inputs.dates == DAYS
        assert final(bench).state is CaseState.REPORTED
        return outcome(bench, only)


@given(way=ways())
@settings(max_examples=6, deadline=None)
def test_without_a_report_on_the_way_the_bytes_are_the_same(
    way: list[Sent], studies: Studies, expected: Outcome
) -> None:
    """Whatever came first and whenever the reconciler looked: same inputs, same result, same bytes."""
    with a_bench() as bench:
        live_through(bench, way, studies, moving=False)
        (only,) = reported(bench)
        assert outcome(bench, only) == expected


@given(way=ways())
@settings(max_examples=6, deadline=None)
def test_with_reports_on_the_way_inputs_and_result_are_the_same(
    way: list[Sent], studies: Studies, expected: Outcome
) -> None:
    """Each report names the one before, the case stands on the run of the final inputs, and the stranger waits."""
    with a_bench() as bench:
        live_through(bench, way, studies, moving=True)
        made, case = reported(bench), final(bench)
        assert [run.version for run in made] == list(range(1, len(made) + 1))
        assert [run.predecessor for run in made] == [None, *(run.run_key for run in made)][: len(made)]
        assert case.state is CaseState.REPORTED
        (last,) = (run for run in made if run.run_key == case.run_key)
        assert outcome(bench, last)[:2] == expected[:2]
        stranger = final(bench, "PHANTOM-2")
        assert (stranger.state, stranger.reasons[0].code) == (CaseState.WAITING, "too-few-time-points")

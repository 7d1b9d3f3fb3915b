"""Fuzzing in short: some cases of every target, the whole corpus, and that the machinery finds what it is to find.

The long form is `make fuzz`: a hundred thousand cases, in workers that may be lost.
"""

from __future__ import annotations

from pathlib import Path
from random import Random
from typing import TYPE_CHECKING

import pytest

from tests.fuzz import campaign, make_corpus, mutations, pdus
from tests.fuzz.elements import read_file, write_file
from tests.fuzz.targets import SHARES, TARGETS, DefectError, Headers, Target, chance_of, quiet

if TYPE_CHECKING:
    from collections.abc import Iterator

REGRESSIONS = make_corpus.FOLDER / "regressions"
SHORT = {"headers": 150, "reader": 12, "volume": 40, "roles": 60, "hl7": 60, "pdu": 25}
SEED = 20260101


@pytest.fixture(params=list(TARGETS))
def target(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[str, Target]]:
    """Every target, each in a folder of its own; closing it asks whether all is as it should be."""
    found = TARGETS[request.param](tmp_path)
    with quiet():
        yield request.param, found
        found.close()


def test_cases_and_regressions_leave_the_node_as_it_was(target: tuple[str, Target]) -> None:
    """New cases, then every case that once was a defect: nothing is raised, and good input still gets through."""
    name, found = target
    outcomes = {found.run(found.make(chance_of(SEED, name, number))) for number in range(SHORT[name])}
    assert len(outcomes) > 1, "cases that all end alike try nothing"
    for folder in sorted(REGRESSIONS.glob(f"{name}-*")):
        found.run({path.name: path.read_bytes() for path in folder.iterdir()})


@pytest.mark.long
@pytest.mark.timeout(0)
@pytest.mark.parametrize("name", list(TARGETS))
def test_a_hundred_thousand_cases(name: str, tmp_path: Path) -> None:
    """The long form, each target with its share."""
    cases = campaign.share(100_000, ())[name]
    found = campaign.run(name, cases=cases, seed=SEED, keep=tmp_path)
    assert not found.defects
    assert found.cases == cases


def test_the_corpus_is_what_its_program_makes(tmp_path: Path) -> None:
    """No seed is of anybody's patient: the program writes all of them, byte for byte."""
    if not Path("/usr/bin/dcmcjpeg").is_file():
        pytest.skip("DCMTK is not installed (Debian package dcmtk)")
    made = {path.relative_to(tmp_path): path.read_bytes() for path in make_corpus.make(tmp_path)}
    kept = {path.relative_to(make_corpus.FOLDER): path.read_bytes() for path in make_corpus.FOLDER.rglob("*.*")}
    assert made == {name: content for name, content in kept.items() if name.suffix in {".dcm", ".pdu", ".hl7"}}


@pytest.mark.parametrize("seed", [path.name for path in sorted(make_corpus.SEEDS.iterdir())])
def test_seeds_are_good(seed: str, tmp_path: Path) -> None:
    """Unchanged they are read as what they are: else mutations would start from what is refused at once."""
    outcome = Headers(tmp_path).run({"case.dcm": (make_corpus.SEEDS / seed).read_bytes()})
    assert outcome == {"rejection-note.dcm": "note", "report.dcm": "structured-report"}.get(seed, "facts")


@pytest.mark.parametrize("name", ["classic-0.dcm", "enhanced.dcm", "rejection-note.dcm", "report.dcm"])
def test_a_tree_without_a_lie_is_the_file_that_was_read(name: str) -> None:
    """Reading and writing again changes no byte."""
    content = (make_corpus.SEEDS / name).read_bytes()
    assert write_file(read_file(content)) == content


def test_the_same_seed_makes_the_same_case() -> None:
    """A number is enough to have a case again; another number is another case."""
    content = (make_corpus.SEEDS / "enhanced.dcm").read_bytes()
    cases = [mutations.mutate(content, Random(f"{number}")) for number in (1, 1, 2)]
    assert cases[0] == cases[1] != cases[2]


def test_a_good_session_is_a_good_c_store() -> None:
    """What PDU mutations start from names the UID of its own data set."""
    sent = pdus.image()
    assert sent.uid in sent.data_set
    assert pdus.kinds(pdus.associate() + pdus.store(sent.uid, sent.data_set)) == [1, 4, 4]


def test_a_worker_that_dies_or_hangs_is_a_defect_and_the_rest_is_run(tmp_path: Path) -> None:
    """The runner itself: a case that ends its process, and one that raises, are found, kept and passed by."""
    found = campaign.Found("headers")
    line = {"number": 3, "outcome": "defect", "took_s": 0.1, "peak_mb": 20.0, "defect": "DefectError: said"}
    found.note(line)
    found.note(line | {"number": 4, "outcome": "facts", "defect": "", "peak_mb": campaign.PEAK_LIMIT_MB + 1})
    assert [number for number, _ in found.defects] == [3, 4]
    campaign.save(tmp_path / "kept", "headers", SEED, 3, "what")
    assert (tmp_path / "kept" / "case.dcm").read_bytes() == Headers.make(chance_of(SEED, "headers", 3))["case.dcm"]


def test_shares_add_up() -> None:
    """Every case of a campaign is somebody's."""
    assert sum(SHARES.values()) == 100
    assert set(SHARES) == set(TARGETS)
    assert sum(campaign.share(1001, ()).values()) == 1001


def test_what_must_hold_is_checked(tmp_path: Path) -> None:
    """A target that never complains would find nothing: facts that JSON cannot hold are a defect."""
    roles = TARGETS["roles"](tmp_path)
    with pytest.raises((DefectError, ValueError, KeyError)):
        roles.run({"facts.json": b'[{"attributes": {}}]'})

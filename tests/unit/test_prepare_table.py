"""A table of scans becomes a cohort: to the bit what the node computes, in spite of kills, torn files and bad scans."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path

import click
import nibabel
import numpy as np
import pytest
from click.testing import CliRunner, Result

from inference.bundle import load, shipped
from inference.cli_cohort import prepare, table
from inference.feature_cache import remember
from inference.phantom import make_patient, render, scan_grid
from inference.predictor import Predictor, Scan
from inference.preprocess import Preprocessed, Quality, volume_key
from inference.training.cohort import open_cohort
from inference.training.cohort_table import read_table
from inference.training.eligibility import Rule
from inference.training.prepare import Job, Space, array_digest, loaded_template, prepare_scans
from inference.training.prepared_cohort import prepare_table
from inference.training.sources import find_source
from inference.training.splits import read_split
from tests.factories.mr import classic_series, write

GRID = scan_grid(spacing_mm=(5.0, 2.5, 2.5), shape=(32, 90, 78))
BUNDLE = "phantom_recurrence"
HEADER = "patient,scan_date,FLAIR,T1,surgery,event,last_follow_up,site,age,sex\n"
TABLE = (
    HEADER
    + "P,2020-03-01,visit0,,2020-01-01,,2022-01-01,north,40,F\n"
    + "P,2020-06-01,visit1.nii.gz,,,,,,,\n"
    + "P,2020-09-01,broken,,,,,,,\n"  # slices are missing
    + "P,2020-12-01,,visit2,,,,,,\n"  # another role only
    + "P,2021-06-01,later,,,,,,,\n"  # less than a year of follow-up
    + "Q,2020-03-01,thin.nii.gz,,2020-01-01,2020-12-01,,south,,\n"  # a slab, no head
    + "Q,2020-06-01,missing-slices,,,,,,,\n"
)


@dataclass(frozen=True)
class Made:
    """A prepared cohort: its folder, what the command said, and the first volume before and after the kill."""

    folder: Path
    said: Result
    inode_before: int
    inode_after: int


@pytest.fixture(scope="module")
def scans(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with the table and its scans: a phantom's visits as DICOM and NIfTI, and broken series."""
    folder = tmp_path_factory.mktemp("scans")
    patient = make_patient(11, n_visits=2)
    visits = [render(patient, visit, "FLAIR", grid=GRID) for visit in range(2)]
    array, affine = visits[0]
    paths = write(classic_series(array, affine, name="visit 0"), folder / "visit0")
    for name in ("visit2", "later"):
        write(classic_series(array[:9], affine, name=name), folder / name)
    for name in ("broken", "missing-slices"):
        (folder / name).mkdir()
        for path in paths[:10] + paths[12:20]:
            (folder / name / path.name).write_bytes(path.read_bytes())
    ras = np.diag([-1.0, -1.0, 1.0, 1.0])
    stored = np.clip(np.rint(visits[1][0]), 0, 4095).astype(np.int16)
    nibabel.save(nibabel.Nifti1Image(stored.T, ras @ visits[1][1]), folder / "visit1.nii.gz")
    nibabel.save(nibabel.Nifti1Image(stored[10:20].T, ras @ visits[1][1]), folder / "thin.nii.gz")
    (folder / "table.csv").write_text(TABLE)
    return folder


@pytest.fixture(scope="module")
def made(scans: Path, tmp_path_factory: pytest.TempPathFactory) -> Made:
    """Prepare the table with a torn volume in the way; kill it after the first scan, and run it again."""
    out = tmp_path_factory.mktemp("cohort")
    (out / "prepared").mkdir()
    volume_of(scans / "visit1.nii.gz", out).write_bytes(b"PK\x03\x04torn")
    first = volume_of(scans / "visit0", out)
    arguments = [str(scans / "table.csv"), "--out", str(out), "--bundle", BUNDLE]
    kill_when_there(first, [*arguments, "--workers", "1"])
    before = first.stat().st_ino
    said = CliRunner().invoke(prepare, [*arguments, "--workers", "2"])
    return Made(folder=out, said=said, inode_before=before, inode_after=first.stat().st_ino)


def volume_of(path: Path, out: Path) -> Path:
    """Return where the volume of a source belongs."""
    shape = load(shipped(BUNDLE)).metadata.input_shape
    return out / "prepared" / f"{volume_key(find_source(path).digest, 'FLAIR', loaded_template(None), shape)}.npz"


def kill_when_there(path: Path, arguments: list[str]) -> None:
    """Run `prepare` until a file appears, kill it alone, and see that its workers go with it."""
    command = [sys.executable, "-c", "from inference.cli_cohort import prepare; prepare()", *arguments]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL) as process:
        wait_for(path.exists)
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        process.send_signal(signal.SIGKILL)
    assert children
    wait_for(lambda: not any(Path(f"/proc/{child}").exists() for child in children))


def wait_for(condition, seconds: float = 300) -> None:
    """Wait until something holds."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)


def rows(path: Path) -> list[dict[str, str]]:
    """Return the lines of a CSV file."""
    with path.open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_a_killed_run_goes_on_where_it_was(made: Made) -> None:
    """The first volume is not computed again; the torn one is."""
    assert made.said.exit_code == 0, made.said.output
    assert made.inode_after == made.inode_before
    assert len(list((made.folder / "prepared").glob("*.npz"))) == 2


def test_the_cohort_holds_days_labels_and_who_the_patient_is(made: Made) -> None:
    """Two scans in float32, days from the newest, censored after more than a year: no event."""
    cohort = open_cohort(made.folder)
    assert list(cohort.patients) == ["P"]
    assert cohort.volumes.dtype == np.float32
    assert cohort.days.tolist() == [-92, 0]
    assert cohort.labels.tolist() == [0]
    assert (cohort.sites[0], cohort.sexes[0]) == ("north", "F")
    assert cohort.ages_years[0] == pytest.approx(40.25, abs=0.1)
    assert 0 <= cohort.volumes.min() < cohort.volumes.max() == 1


def test_a_prepared_volume_is_to_the_bit_the_node_s(made: Made, scans: Path) -> None:
    """The node computes the same volume from the same files, and finds the one that is prepared under its own name."""
    source = find_source(scans / "visit0")
    scan = Scan(acquired=datetime(2020, 3, 1, tzinfo=UTC), series={"FLAIR": source.files}, digest=source.digest)
    bundle = load(shipped(BUNDLE))
    served = Predictor(bundle, device="cpu").prepare(scan).preprocessed
    prepared = open_cohort(made.folder).volumes[0]
    assert prepared.tobytes() == served.array.tobytes()
    first = rows(made.folder / "scans.csv")[0]
    assert first["volume_digest"] == array_digest(served.array)
    volumes = sorted((made.folder / "prepared").glob("*.npz"))
    Predictor(bundle, device="cpu", cache=made.folder / "prepared").prepare(scan)
    (features,) = set((made.folder / "prepared").glob("*.npz")) - set(volumes)
    assert features.stat().st_size < 10_000
    features.unlink()


def test_every_line_of_the_table_says_what_became_of_it(made: Made) -> None:
    """Failures with their reasons; a patient without enough scans is out, and nothing else is lost for it."""
    found = {int(row["line"]): row for row in rows(made.folder / "scans.csv")}
    assert {line: row["status"] for line, row in found.items()} == {
        2: "included",
        3: "included",
        4: "not-prepared",
        5: "missing-role",
        6: "label-unknown",
        7: "not-prepared",
        8: "not-prepared",
    }
    assert [found[line]["place"] for line in (2, 3, 4)] == ["0", "1", ""]
    assert "GeometryError" in found[4]["failure"]
    assert "field of view" in found[7]["failure"]
    assert found[2]["flags"] == "thick-slices"
    assert [row["status"] for row in rows(made.folder / "patients.csv")] == ["included", "fewer than 2 usable scans"]
    assert "2 patients: 1 included, 1 excluded" in made.said.output
    assert "set aside: line 4: GeometryError" in made.said.output
    about = json.loads((made.folder / "about.json").read_text())
    assert about["rule"]["kind"] == "follow-up"


def test_the_quality_sheet_shows_the_worst_first(made: Made) -> None:
    """Missing roles, then refusals, then scans by how well they lie; two pictures, and no other file is needed."""
    found = rows(made.folder / "quality.csv")
    assert [int(row["line"]) for row in found[:4]] == [5, 4, 7, 8]
    assert float(found[4]["margin"]) <= float(found[5]["margin"]) <= 1
    page = (made.folder / "quality.html").read_text()
    assert page.count("<img") == page.count("src=") == page.count("data:image/png;base64,") == 2


def test_one_image_under_two_names_is_set_aside_both_times(tmp_path: Path) -> None:
    """Nobody can know whose it is; an older scan takes its place where there is one."""
    space = Space(role="FLAIR", shape=(2, 2, 2))
    quality = Quality(coverage=1.0, overlap=0.9, mutual_information=0.3)
    lines = ["patient,scan_date,FLAIR,surgery,last_follow_up"]
    for number, (patient, image) in enumerate([("P", 1), ("P", 2), ("P", 3), ("Q", 4), ("Q", 3)]):
        path = tmp_path / f"{number}.nii"
        path.write_bytes(bytes([number]))
        prepared = Preprocessed(
            array=np.full((2, 2, 2), image / 10, dtype=np.float32),
            affine=np.eye(4),
            template_to_source=np.eye(4),
            quality=quality,
        )
        key = volume_key(find_source(path).digest, "FLAIR", loaded_template(None), space.shape)
        remember(tmp_path / "out" / "prepared", key, prepared)
        lines.append(f"{patient},2020-0{number + 1}-20,{path.name},2020-01-01,2023-01-01")
    (tmp_path / "table.csv").write_text("\n".join(lines))
    rule = Rule(role="FLAIR", max_scans=2)
    read = read_table(tmp_path / "table.csv", today=date(2026, 1, 1))
    done = prepare_table(read, tmp_path / "out", rule=rule, space=space, workers=1)
    assert [each.status for each in done.records] == [
        "included",
        "included",
        "not-prepared",
        "patient-excluded",
        "not-prepared",
    ]
    assert [each.outcome.failure for each in done.records if each.status == "not-prepared" and each.outcome] == [
        "the same image as line 6",
        "the same image as line 4",
    ]
    assert done.cohort.volumes[:, 0, 0, 0].tolist() == pytest.approx([0.1, 0.2])


def test_a_scan_that_takes_its_process_down_is_set_aside(tmp_path: Path) -> None:
    """A decoder's crash or the kernel's killer ends one scan, not the run."""
    nothing = tmp_path / "nothing.nii"
    jobs = [Job(line=2, path=nothing), Job(line=3, path=Bomb()), Job(line=4, path=nothing)]
    space = Space(role="FLAIR", shape=(12, 16, 12))
    found = {each.line: each.failure for each in prepare_scans(jobs, space, tmp_path, workers=1)}
    assert found[3].startswith("the process that read it died")
    assert all(found[line].startswith("FileNotFoundError") for line in (2, 4))


class Bomb(Path().__class__):
    """A path that ends the process it arrives in."""

    def __reduce__(self):
        """Be read as a call that ends the process."""
        return os._exit, (7,)


@pytest.mark.parametrize("command", [prepare, table, *table.commands.values()], ids=lambda each: each.name)
def test_every_verb_and_option_is_explained(command: click.Command) -> None:
    """Each verb has a sentence, each option a help text."""
    assert command.help
    assert all(each.help for each in command.params if isinstance(each, click.Option))
    assert CliRunner().invoke(command, ["--help"]).exit_code == 0


def test_check_tells_who_is_left_out(scans: Path, tmp_path: Path) -> None:
    """Before any scan is read: Q's event is within a year."""
    said = CliRunner().invoke(table, ["check", str(scans / "table.csv"), "--report", str(tmp_path)])
    assert said.exit_code == 0, said.output
    assert "labels of the included: 1 with the event, 1 without, 0 unknown" in said.output
    assert len(rows(tmp_path / "exclusions.csv")) == 7


def test_check_tells_every_mistake_and_exits_with_2(scans: Path, tmp_path: Path) -> None:
    """By line and column."""
    wrong = scans / "wrong.csv"
    wrong.write_text(TABLE.replace("2020-06-01", "1.6.2020").replace("later", "gone"))
    said = CliRunner().invoke(table, ["check", str(wrong)])
    assert said.exit_code == 2
    assert "3 problems" in said.output
    assert "line 6: FLAIR: expected" in said.output


def test_a_rule_that_no_scan_can_keep_is_refused(scans: Path) -> None:
    """With both numbers, and before the table is read."""
    arguments = ["check", str(scans / "table.csv"), "--min-gap-days", "30", "--max-gap-days", "20"]
    said = CliRunner().invoke(table, arguments)
    assert said.exit_code == 2
    assert "expected at least min_gap_days (30), found 20" in said.output


def test_split_writes_every_included_patient_once(scans: Path, tmp_path: Path) -> None:
    """And says how many of each part have the event; what cannot be kept is refused."""
    arguments = ["split", str(scans / "table.csv"), "--out", str(tmp_path / "split.json"), "--folds", "2"]
    said = CliRunner().invoke(table, [*arguments, "--test", "0", "--calibration", "0"])
    assert said.exit_code == 0, said.output
    assert sorted(read_split(tmp_path / "split.json").parts) == ["P", "Q"]
    assert CliRunner().invoke(table, [*arguments, "--test", "0.5", "--test-by", "date"]).exit_code == 2
    assert CliRunner().invoke(table, [*arguments, "--test", "0.9"]).exit_code == 2


def test_a_role_that_the_bundle_does_not_read_is_refused(scans: Path, tmp_path: Path) -> None:
    """The bundle says what it reads."""
    arguments = [str(scans / "table.csv"), "--out", str(tmp_path), "--bundle", BUNDLE, "--role", "T1"]
    said = CliRunner().invoke(prepare, arguments)
    assert said.exit_code == 2
    assert "expected FLAIR as the bundle reads, found T1" in said.output


def test_nobody_left_is_an_error_with_the_records_written(scans: Path, tmp_path: Path) -> None:
    """No scan is read for it."""
    arguments = [str(scans / "table.csv"), "--out", str(tmp_path), "--min-scans", "6", "--size", "small"]
    said = CliRunner().invoke(prepare, arguments)
    assert said.exit_code == 1
    assert {row["status"] for row in rows(tmp_path / "patients.csv")} == {"fewer than 6 usable scans"}

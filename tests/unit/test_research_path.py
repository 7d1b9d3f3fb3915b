"""A hospital's path by the command line: table, split, prepared cohort, pretrain, finetune, export, evaluate, node.

The scans are noise around a spot that grows before an event; what is under test is that each step reads what the last
one wrote, and refuses what would make its figures worthless.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
import yaml
from click.testing import CliRunner

from inference.__main__ import main
from inference.bundle import load
from inference.bundle_files import read_metadata
from inference.evaluation.locked import count_openings
from inference.models import SIZES, Ensemble
from inference.training.cohort import PatientScans, open_cohort, write_cohort
from inference.training.eligibility import Rule
from inference.training.known_patients import IN_BUNDLE, beside, hashed, read_known, shared, write_known
from inference.training.provenance import Provenance, TemplateUsed, write_provenance
from inference.training.splits import read_split

if TYPE_CHECKING:
    from click.testing import Result

SHAPE = SIZES["small"].input_shape
PATIENTS, SCANS, GAP = 34, 4, 120
SURGERY = date(2018, 1, 1)
TINY = ("--width", "2", "--accelerator", "cpu", "--batch-patients", "6")
ABOUT = {
    "name": "our_recurrence",
    "version": "1.0.0",
    "task": "recurrence",
    "description": "two tiny networks",
    "authors": "a hospital",
    "copyright": "a hospital",
    "intended_use": "Research only.",
    "training_data": "patients of one hospital",
    "slice_thickness_mm": [1.0, 5.0],
}


@dataclass(frozen=True)
class Hospital:
    """The files of a site that trains its own model, as the verbs leave them."""

    folder: Path

    def path(self, name: str) -> str:
        """Return one of its files."""
        return str(self.folder / name)

    def weights(self) -> list[str]:
        """Return the options that name its two members."""
        return ["--weights", self.path("0.pt"), "--weights", self.path("1.pt")]

    def split(self) -> list[str]:
        """Return the option that names its split."""
        return ["--split", self.path("split.json")]

    def export(self, out: Path, *more: str) -> Result:
        """Export its members."""
        options = ["--about", self.path("about.yaml"), "--training", self.path("cohort"), *self.split()]
        return run("export", *self.weights(), *options, "--out", str(out), *more)

    def evaluate(self, out: Path, *more: str) -> Result:
        """Evaluate its bundle on the locked test."""
        options = ["--bundle", self.path("bundle"), "--test", self.path("cohort"), "--prevalence", "0.3"]
        return run("evaluate", *options, "--out", str(out), *more)


def run(*arguments: str) -> Result:
    """Run a verb; whatever it refuses, it refuses with words."""
    result = CliRunner().invoke(main, list(arguments))
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def done(*arguments: str) -> Result:
    """Run a verb that must succeed."""
    result = run(*arguments)
    assert result.exit_code == 0, result.output
    return result


def patient_scans(number: int, *, name: str = "P", shape: tuple[int, int, int] = SHAPE) -> PatientScans:
    """Return a patient with a bright spot; every other one has an event, and a spot that grows before it."""
    rng = np.random.default_rng(number)
    event = number % 2 == 1
    volumes = rng.integers(60, 80, (SCANS, *shape), dtype=np.uint8)
    for scan, volume in enumerate(volumes):
        across = 6 + scan * (3 if event else 0)
        volume[tuple(slice(size // 3, size // 3 + across) for size in shape)] += np.uint8(120)
    return PatientScans(
        patient=f"{name}{number}",
        volumes=volumes,
        days=tuple(range(-GAP * (SCANS - 1), 1, GAP)),
        event_day=100 if event else None,
        follow_up_day=100 if event else 500,
    )


def write_prepared(folder: Path, numbers: range, *, rule: Rule | None = None, **how: object) -> None:
    """Write a cohort as `prepare` would."""
    folder.mkdir(parents=True, exist_ok=True)
    cohort = write_cohort(folder, [patient_scans(number, **how) for number in numbers])  # type: ignore[arg-type]  # as patient_scans takes them
    template = TemplateUsed(name="MNI152", digest="sha256:template")
    z, y, x = cohort.volumes.shape[1:]
    told = Provenance(
        table="sha256:table",
        rule=rule or Rule(role="FLAIR"),
        shape=(z, y, x),
        template=template,
        preprocessing_version="3",
    )
    write_provenance(folder, told)


def write_table(folder: Path) -> None:
    """Write the table that the cohort was prepared from."""
    lines = ["patient,scan_date,FLAIR,surgery,event,last_follow_up"]
    newest = SURGERY + timedelta(days=GAP * SCANS)
    for number in range(PATIENTS):
        for scan in range(SCANS):
            path = f"scans/{number}-{scan}.nii.gz"
            (folder / path).parent.mkdir(exist_ok=True)
            (folder / path).write_bytes(b"")
            event = newest + timedelta(days=100) if number % 2 else ""
            day = SURGERY + timedelta(days=GAP * (scan + 1))
            last = newest + timedelta(days=100 if number % 2 else 500)
            lines.append(f"P{number},{day},{path},{SURGERY},{event},{last}")
    (folder / "table.csv").write_text("\n".join(lines))


@pytest.fixture(scope="module")
def hospital(tmp_path_factory: pytest.TempPathFactory) -> Hospital:
    """Walk from the table to two trained members."""
    torch.set_num_threads(1)
    site = Hospital(tmp_path_factory.mktemp("hospital"))
    write_table(site.folder)
    write_prepared(site.folder / "cohort", range(PATIENTS))
    (site.folder / "about.yaml").write_text(yaml.safe_dump(ABOUT))
    shares = ("--test", "0.3", "--calibration", "0.3", "--folds", "2")
    done("table", "split", site.path("table.csv"), "--out", site.path("split.json"), *shares)
    cohort = ("--cohort", site.path("cohort"), *site.split())
    done("pretrain", *cohort, "--fold", "0", "--out", site.path("pretrained.pt"), *TINY)
    for fold in ("0", "1"):
        start = ("--weights", site.path("pretrained.pt"), "--heads-epochs", "1")
        done("finetune", *cohort, "--fold", fold, "--out", site.path(f"{fold}.pt"), *start, *TINY)
    exported = site.export(site.folder / "bundle")
    assert exported.exit_code == 0, exported.output
    return site


def test_a_bundle_of_a_hospital_comes_from_its_table(hospital: Hospital, tmp_path: Path) -> None:
    """What the cohort knows is in the bundle without being claimed; the test's patients are scored, once, on record."""
    bundle = load(hospital.folder / "bundle")
    metadata = bundle.metadata
    assert isinstance(bundle.network, Ensemble)
    assert bundle.definition.members == 2
    assert (metadata.synthetic_training_data, metadata.template, metadata.roles) == (False, "mni152", ("FLAIR",))
    assert metadata.selection == Rule(role="FLAIR").selection
    assert {each.name for each in metadata.outputs[0].thresholds} == {"rule-out", "rule-in"}
    assert metadata.outputs[0].operating_points == ()
    locked = hospital.evaluate(tmp_path / "locked", *hospital.split())
    assert locked.exit_code == 1
    assert "--final" in locked.output
    cohort = hospital.folder / "cohort"
    before = count_openings(cohort)
    scored, report = tmp_path / "scored", tmp_path / "report"
    result = hospital.evaluate(report, *hospital.split(), "--final", "the test", "--scored", str(scored))
    assert result.exit_code == 0, result.output
    assert count_openings(cohort) == before + 1
    check_the_report(report, hospital)
    check_the_scored_bundle(scored, result)


def check_the_report(report: Path, hospital: Hospital) -> None:
    """The test part alone was scored, by two seeds, with the bundle's own thresholds and landmarks."""
    told = json.loads((report / "report.json").read_text())
    parts = list(read_split(hospital.folder / "split.json").parts.values())
    assert told["test"]["n_patients"] == parts.count("test")
    arm = next(each for each in told["test"]["arms"] if each["name"] == "bundle")
    assert arm["n_seeds"] == 2
    assert told["coverage"]
    assert {"rule-out", "rule-in"} < {each["name"] for each in told["operating_points"]}
    assert "## Landmarks" in (report / "report.md").read_text()
    pooled = json.loads((report / "landmarks.json").read_text())[-1]
    assert (pooled["year"], pooled["n_patients"]) == (None, parts.count("test"))


def check_the_scored_bundle(folder: Path, said: Result) -> None:
    """The thresholds now say what they reached; the bundle loads under the digest that was printed."""
    scored = load(folder, expected_digest=said.output.split()[-1])
    points = scored.metadata.outputs[0].operating_points
    assert [each.name for each in points] == ["rule-out", "rule-in"]
    assert all(each.predictive_values and each.predictive_values.prevalence == 0.3 for each in points)
    assert "Not measured" not in (folder / "docs/README.md").read_text()
    assert (folder / IN_BUNDLE).is_file()


def test_another_population_is_opened_on_its_own_record(hospital: Hospital, tmp_path: Path) -> None:
    """It stands in the report under its folder's name; scans chosen by another rule are remarked on."""
    write_prepared(tmp_path / "elsewhere", range(300, 312), rule=Rule(role="FLAIR", min_gap_days=30))
    options = ("--shifted", str(tmp_path / "elsewhere"), "--final", "both")
    result = hospital.evaluate(tmp_path / "report", *hospital.split(), *options)
    assert result.exit_code == 0, result.output
    assert count_openings(tmp_path / "elsewhere") == 1
    told = json.loads((tmp_path / "report" / "report.json").read_text())
    assert [(each["name"], each["n_patients"]) for each in told["shifted"]] == [("elsewhere", 12)]
    assert any("elsewhere: its scans were chosen by another rule" in each for each in told["warnings"])


def test_a_bundle_that_does_not_say_whom_it_has_seen_is_remarked_on(hospital: Hospital, tmp_path: Path) -> None:
    """It may have left the hospital without the file."""
    shutil.copytree(hospital.folder / "bundle", tmp_path / "bundle")
    (tmp_path / "bundle" / IN_BUNDLE).unlink()
    options = ("--bundle", str(tmp_path / "bundle"), "--final", "remarked")
    result = hospital.evaluate(tmp_path / "report", *hospital.split(), *options)
    assert result.exit_code == 0, result.output
    told = json.loads((tmp_path / "report" / "report.json").read_text())
    assert any("nobody checked that the test is new to it" in each for each in told["warnings"])


def test_a_bundle_is_judged_by_its_own_thresholds(hospital: Hospital, tmp_path: Path) -> None:
    """Not by those that the validation patients would fix anew."""
    shutil.copytree(hospital.folder / "bundle", tmp_path / "bundle")
    file = tmp_path / "bundle" / "configs" / "metadata.json"
    told = json.loads(file.read_text())
    told["outputs"][0]["thresholds"] = [{"name": "ours", "threshold": 0.123, "target": None}]
    file.write_text(json.dumps(told))
    result = hospital.evaluate(
        tmp_path / "report", *hospital.split(), "--bundle", str(tmp_path / "bundle"), "--final", "thresholds"
    )
    assert result.exit_code == 0, result.output
    points = json.loads((tmp_path / "report" / "report.json").read_text())["operating_points"]
    assert {each["name"]: each["threshold"] for each in points}["ours"] == 0.123


def test_weights_know_whom_they_have_seen(hospital: Hospital) -> None:
    """Both folds and nobody else: not the calibration part, not the test."""
    parts = read_split(hospital.folder / "split.json").parts
    known = read_known(beside(hospital.folder / "0.pt"))
    assert known is not None
    of = {name: [patient for patient, part in parts.items() if part == name] for name in set(parts.values())}
    assert {name: shared(known, patients) for name, patients in of.items()} == {
        "fold-0": len(of["fold-0"]),
        "fold-1": len(of["fold-1"]),
        "calibration": 0,
        "test": 0,
    }
    assert "P1" not in beside(hospital.folder / "0.pt").read_text()


def test_what_the_pretext_saw_is_not_forgotten(hospital: Hospital, tmp_path: Path) -> None:
    """Weights that start from others have seen whom those had seen; without a record nobody knows."""
    start = tmp_path / "start.pt"
    shutil.copy(hospital.folder / "pretrained.pt", start)
    cohort = ("--cohort", hospital.path("cohort"), *hospital.split(), "--fold", "0")
    made = ("--weights", str(start), "--out", str(tmp_path / "w.pt"), "--heads-epochs", "0", *TINY)
    assert "expected whom these weights have seen" in run("finetune", *cohort, *made).output
    beside(start).write_text("a torn record\n")
    assert "found something else in line 1" in run("finetune", *cohort, *made).output
    write_known(beside(start), [hashed(["SEEN-BEFORE"])])
    done("finetune", *cohort, *made)
    known = read_known(beside(tmp_path / "w.pt"))
    assert known is not None
    assert shared(known, ["SEEN-BEFORE", "NEVER-SEEN"]) == 1


def test_patients_that_the_bundle_has_seen_are_no_test(hospital: Hospital, tmp_path: Path) -> None:
    """Whatever the split says; the opening is not even recorded."""
    write_prepared(tmp_path / "other", range(100, 112))
    before = count_openings(hospital.folder / "cohort")
    result = hospital.evaluate(tmp_path / "report", "--validation", str(tmp_path / "other"), "--final", "all of them")
    assert result.exit_code == 1
    assert "expected patients new to the bundle" in result.output
    assert count_openings(hospital.folder / "cohort") == before


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--part", "test,calibration"), "expected different patients"),
        (("--part", "fold-7"), "found fold-7"),
        (("--arm", "bundle=x.pt"), "expected every name once"),
        (("--arm", "order=x.pt"), "expected files"),
        (("--arm", "order={folder}/about.yaml"), "expected weights"),
        (("--shifted", "{folder}/coarse"), "expected scans of"),
        (("--shifted", "{folder}/scans"), "expected a cohort"),
        (("--shifted", "{folder}/t1"), "expected scans of (('FLAIR',), 'mni152')"),
        (("--arm", "gap only={folder}/0.pt"), "expected every name once"),
        (("--out", "{folder}/table.csv"), "--out: expected a folder that can be written"),
    ],
)
def test_what_is_wrong_is_found_before_the_test_is_opened(
    hospital: Hospital, tmp_path: Path, options: tuple[str, str], message: str
) -> None:
    """An opening counts for ever."""
    write_prepared(hospital.folder / "coarse", range(200, 204), shape=(12, 16, 12))
    write_prepared(hospital.folder / "t1", range(200, 202), rule=Rule(role="T1"))
    before = count_openings(hospital.folder / "cohort")
    filled = [each.format(folder=hospital.folder) for each in options]
    result = hospital.evaluate(tmp_path / "report", *hospital.split(), "--final", "no", *filled)
    assert result.exit_code != 0
    assert message in result.output
    assert count_openings(hospital.folder / "cohort") == before


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--cohort", "{cohort}", "--validation", "{cohort}"), "expected different patients"),
        (("--cohort", "{cohort}", "--part", "test", "--split", "{split}", "--validation-part", "fold-0"), "locked"),
        (("--cohort", "{cohort}", "--split", "{split}", "--fold", "5"), "expected 0 to 1, found 5"),
        (("--cohort", "{cohort}", "--fold", "0"), "expected with --split"),
        (("--cohort", "{cohort}"), "--validation: expected a cohort"),
        (("--cohort", "{coarse}", "--validation", "{cohort}"), "expected scans of (48, 64, 48)"),
        (("--cohort", "{scans}", "--validation", "{cohort}"), "expected a cohort"),
        (("--cohort", "{cohort}", "--split", "{split}", "--fold", "0", "--out", "{scans}/no/w.pt"), "--out"),
        (("--cohort", "{cohort}", "--split", "{split}", "--fold", "0", "--seed", "-1"), "--seed"),
    ],
)
@pytest.mark.parametrize("verb", ["pretrain", "finetune"])
def test_training_refuses_before_it_begins(
    hospital: Hospital, tmp_path: Path, verb: str, options: tuple[str, ...], message: str
) -> None:
    """Shared patients, the locked test, another grid, folders and files that are not there."""
    write_prepared(hospital.folder / "coarse", range(200, 204), shape=(12, 16, 12))
    names = {"split": hospital.path("split.json")} | {
        each: hospital.path(each) for each in ("cohort", "coarse", "scans")
    }
    out = () if "--out" in options else ("--out", str(tmp_path / "w.pt"))
    result = run(verb, *(each.format(**names) for each in options), *out, *TINY)
    assert result.exit_code != 0
    assert message in result.output
    assert not (tmp_path / "w.pt").exists()


@pytest.mark.parametrize(
    ("claim", "message"),
    [
        ({"synthetic_training_data": True}, "synthetic_training_data: expected False, found True"),
        ({"template": "anything"}, "template: expected mni152, found anything"),
        ({"selection": {"roles": ["T1"], "kinds": ["follow-up"], "maximum": 6}}, "the cohorts say otherwise"),
        ({"selection": {"kinds": []}}, "the cohorts say otherwise"),
        ({"colour": "blue"}, "colour"),
    ],
)
def test_a_claim_that_the_cohorts_deny_is_refused(
    hospital: Hospital, tmp_path: Path, claim: dict[str, object], message: str
) -> None:
    """Nobody has to be believed."""
    (tmp_path / "about.yaml").write_text(yaml.safe_dump(ABOUT | claim))
    result = hospital.export(tmp_path / "bundle", "--about", str(tmp_path / "about.yaml"))
    assert result.exit_code == 2
    assert message in result.output
    assert not (tmp_path / "bundle").exists()


def test_calibration_patients_must_be_new_to_every_member(hospital: Hospital, tmp_path: Path) -> None:
    """Those of training are refused by their IDs, those of the pretext by what the weights remember."""
    both = hospital.export(tmp_path / "bundle", "--calibration-part", "fold-0")
    assert "expected different patients, found" in both.output
    part = hospital.export(tmp_path / "bundle", "--part", "fold-0", "--calibration-part", "fold-1")
    assert "expected calibration patients that it never saw" in part.output
    assert not (tmp_path / "bundle").exists()


def test_weights_that_learnt_from_others_are_refused(hospital: Hospital, tmp_path: Path) -> None:
    """Phantoms' weights with a hospital's cohort would be sold as a hospital's."""
    shutil.copy(hospital.folder / "0.pt", tmp_path / "w.pt")
    own = ["--about", hospital.path("about.yaml"), "--training", hospital.path("cohort"), *hospital.split()]
    arguments = ["export", "--weights", str(tmp_path / "w.pt"), *own, "--out", str(tmp_path / "bundle")]
    assert "expected whom these weights have seen" in run(*arguments).output
    write_known(beside(tmp_path / "w.pt"), [hashed(["PHANTOM-1"])])
    assert "found nobody of it" in run(*arguments).output
    parts = read_split(hospital.folder / "split.json").parts
    write_known(beside(tmp_path / "w.pt"), [hashed(each for each, part in parts.items() if part == "fold-0")])
    assert "expected patients whom a member learnt from" in run(*arguments).output


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        (Rule(role="FLAIR", kind="post-op"), "prepare the scans with --kind follow-up"),
        (Rule(role="FLAIR", max_scans=None, choose="spread"), "expected one role, kinds and a maximum"),
        (None, "expected it as `prepare` writes it"),
    ],
)
def test_scans_that_no_node_would_show_make_no_bundle(
    hospital: Hospital, tmp_path: Path, rule: Rule | None, message: str
) -> None:
    """A kind that no node tells, a number without an end, or a cohort that nobody knows the making of."""
    folder = tmp_path / "cohort"
    write_prepared(folder, range(PATIENTS), rule=rule)
    if rule is None:
        (folder / "about.json").unlink()
    result = hospital.export(tmp_path / "bundle", "--training", str(folder))
    assert result.exit_code != 0
    assert message in result.output


def test_phantoms_are_never_exported_as_patients(hospital: Hospital, tmp_path: Path) -> None:
    """The cohort's own index says what they are; two kinds of cohorts do not mix."""
    phantoms = tmp_path / "phantoms"
    write_cohort(phantoms, [patient_scans(number) for number in range(PATIENTS)], synthetic=True)
    mixed = hospital.export(tmp_path / "mixed", "--training", str(phantoms), "--calibration", hospital.path("cohort"))
    assert "synthetic: True and False" in mixed.output
    (tmp_path / "about.yaml").write_text(yaml.safe_dump(ABOUT | {"synthetic_training_data": False}))
    options = ("--training", str(phantoms), "--calibration", str(phantoms))
    claimed = hospital.export(tmp_path / "claimed", *options, "--about", str(tmp_path / "about.yaml"))
    assert "synthetic_training_data: expected True, found False" in claimed.output
    assert hospital.export(tmp_path / "honest", *options).exit_code == 0
    assert read_metadata(tmp_path / "honest").synthetic_training_data


def test_an_unclaimed_example_is_complete(tmp_path: Path, hospital: Hospital) -> None:
    """The file that ships as an example says all that must be said."""
    example = Path(__file__).parents[2] / "config" / "about.example.yaml"
    result = hospital.export(tmp_path / "bundle", "--about", str(example))
    assert result.exit_code == 0, result.output


def test_time_gap_weights_are_exported_and_compared(hospital: Hospital, tmp_path: Path) -> None:
    """They are known by their inputs; weights of the other kind cannot start from them."""
    cohort = ("--cohort", hospital.path("cohort"), *hospital.split(), "--fold", "0")
    made = ("--out", str(tmp_path / "gap.pt"), "--heads-epochs", "0", *TINY)
    done("finetune", *cohort, "--time-gap", "--weights", hospital.path("pretrained.pt"), *made)
    own = ("--about", hospital.path("about.yaml"), "--training", hospital.path("cohort"), *hospital.split())
    done("export", "--weights", str(tmp_path / "gap.pt"), *own, "--out", str(tmp_path / "bundle"))
    assert load(tmp_path / "bundle").definition.time_gap
    arm = ("--arm", f"order+gap={tmp_path / 'gap.pt'}", "--final", "compared")
    compared = hospital.evaluate(tmp_path / "report", *hospital.split(), *arm)
    assert compared.exit_code == 0, compared.output
    again = run("finetune", *cohort, "--weights", str(tmp_path / "gap.pt"), *made)
    assert "expected weights of this size and width" in again.output


@pytest.mark.parametrize(("option", "value"), [("--seed", "-1"), ("--out", "{folder}/no/split.json")])
def test_a_split_that_cannot_be_drawn_or_written_is_refused(hospital: Hospital, option: str, value: str) -> None:
    """Before the table is read."""
    out = ("--out", hospital.path("other.json"), option, value.format(folder=hospital.folder))
    result = run("table", "split", hospital.path("table.csv"), *out)
    assert result.exit_code == 2
    assert option in result.output


def test_a_part_of_a_cohort_reads_only_its_own_scans(tmp_path: Path) -> None:
    """Patients far apart in the file; side by side they stay a view of it."""
    write_prepared(tmp_path, range(6), shape=(2, 3, 2))
    whole = open_cohort(tmp_path)
    apart = whole.subset(np.array([4, 1]))
    assert apart.patients.tolist() == ["P4", "P1"]
    assert apart.labels.tolist() == [0, 1]
    assert not isinstance(apart.volumes, np.ndarray)
    assert np.array_equal(np.asarray(apart.volumes)[:4], whole.volumes[16:20])
    assert np.array_equal(apart.volumes[5], whole.volumes[5])
    assert np.array_equal(apart.subset(np.array([1])).volumes[0:2], whole.volumes[4:6])
    assert np.shares_memory(whole.subset(np.array([2, 3])).volumes, whole.volumes)

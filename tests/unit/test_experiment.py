"""An experiment's folder goes on where it was, and never with files of another experiment."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import asdict, replace
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch

from inference.evaluation.confounds import Confound
from inference.training.arms import Arm, Effort
from inference.training.cohort import PatientScans, write_cohort
from inference.training.confound_runs import confound_figures
from inference.training.experiment import Experiment, Job, Trained
from inference.training.leak_controls import leak_controls
from inference.training.presets import MAIN_GROWTH, PRESETS
from inference.training.thick_slices import sd_voxels, with_thick_slices
from inference.training.work_folder import RECORD, WorkFolderError, bind, real_head_digest
from tests.factories.cohorts import cohort_of

if TYPE_CHECKING:
    from pathlib import Path

    from inference.training.presets import PhantomGroup

TINY = replace(PRESETS["smoke"], effort=Effort(width=1, pretext_epochs=1, recurrence_epochs=1, heads_epochs=1))


@pytest.fixture
def experiment(tmp_path: Path) -> Experiment:
    """Return a tiny experiment in an empty folder."""
    torch.set_num_threads(1)
    return Experiment(preset=TINY, work=tmp_path, bar=lambda *_: nullcontext(lambda: None), report=lambda *_: None)


def phantoms(folder: Path, group: PhantomGroup) -> None:
    """Write noise under the names of a group's patients, every second one with the event."""
    rng = np.random.default_rng(group.first_seed)
    write_cohort(
        folder,
        (
            PatientScans(
                patient=f"PHANTOM-{seed:06d}",
                volumes=rng.integers(1, 255, (3, 48, 64, 48)).astype(np.uint8),
                days=(-200, -100, 0),
                event_day=100 if seed % 2 else None,
                follow_up_day=100 if seed % 2 else 900,
            )
            for seed in group.seeds
        ),
        synthetic=True,
    )


def trained(experiment: Experiment, seed: int) -> Trained:
    """Return a network of a few patients, as trained now or earlier."""
    train = replace(TINY.population("train"), patients=5)
    validation = replace(TINY.population("validation"), patients=4)
    for group in (train, validation):
        phantoms(experiment.work / "cohorts" / group.name, group)
    return experiment.trained(Job(arm=Arm.ORDER, train=train, validation=validation, seed=seed, rate=1e-3))


def test_a_folder_is_bound_to_what_it_was_made_with(tmp_path: Path) -> None:
    """The same facts are welcome again, others are refused by name, new ones are added."""
    bind(tmp_path, preset=asdict(PRESETS["smoke"]), generator="abc")
    bind(tmp_path, preset=asdict(PRESETS["smoke"]), generator="abc")
    changed = replace(PRESETS["smoke"], train=99, effort=Effort(width=7))
    with pytest.raises(WorkFolderError, match=r"preset\.effort\..*preset\.train: made with 24, asked for 99"):
        bind(tmp_path, preset=asdict(changed), generator="abc")
    with pytest.raises(WorkFolderError, match="generator: made with abc, asked for xyz"):
        bind(tmp_path, generator="xyz")
    bind(tmp_path, real_head="1")
    with pytest.raises(WorkFolderError, match="real_head: made with 1, asked for 2"):
        bind(tmp_path, real_head="2")
    assert (tmp_path / RECORD).is_file()


def test_a_folder_without_a_record_is_not_trusted(tmp_path: Path) -> None:
    """Networks lie there, and nobody wrote down whose."""
    (tmp_path / "networks").mkdir()
    with pytest.raises(WorkFolderError, match=r"expected experiment\.json"):
        bind(tmp_path, generator="abc")


def test_a_real_head_is_known_by_its_content(tmp_path: Path) -> None:
    """Another image under the same name is another head; a note beside it is not."""
    (tmp_path / "a_T1.nii.gz").write_bytes(b"one")
    before = real_head_digest(tmp_path)
    (tmp_path / "note.txt").write_bytes(b"")
    assert real_head_digest(tmp_path) == before
    (tmp_path / "a_T1.nii.gz").write_bytes(b"two")
    assert real_head_digest(tmp_path) != before


def test_a_cohort_of_other_patients_is_rendered_anew(experiment: Experiment) -> None:
    """As many patients are not the same patients."""
    group = replace(TINY.population("test"), patients=2)
    phantoms(experiment.work / "cohorts" / "test", replace(group, first_seed=group.first_seed + 1))
    made = experiment.cohort(group)
    assert made.patients.tolist() == [f"PHANTOM-{seed:06d}" for seed in group.seeds]
    assert (experiment.cohort(group).volumes[0] == made.volumes[0]).all()


def test_kept_answers_are_those_of_the_networks_and_patients_asked_for(experiment: Experiment) -> None:
    """The same networks: not a forward pass. Another network file, or other patients: answered anew."""
    first, second = trained(experiment, 0), trained(experiment, 1)
    again = trained(experiment, 0)
    assert again.digest == first.digest != second.digest
    group = replace(TINY.population("test"), patients=3)
    phantoms(experiment.work / "cohorts" / "test", group)
    path = experiment.work / "predictions" / "test.npz"
    before = experiment.predictions(group, {Arm.ORDER: [first]})
    written = path.stat().st_mtime_ns
    assert np.array_equal(
        experiment.predictions(group, {Arm.ORDER: [again]}).logits["order"], before.logits["order"], equal_nan=True
    )
    assert path.stat().st_mtime_ns == written
    other = experiment.predictions(group, {Arm.ORDER: [second]})
    assert not np.array_equal(other.logits["order"], before.logits["order"], equal_nan=True)
    more = replace(group, patients=4)
    phantoms(experiment.work / "cohorts" / "test", more)
    assert len(experiment.predictions(more, {Arm.ORDER: [second]}).patients) == 4


def test_the_gap_arm_takes_the_rate_that_was_chosen_for_order(experiment: Experiment) -> None:
    """Two rates are tried for order and none for its ablation, which is trained at the better one."""
    preset = replace(TINY, encoder_rates=(1e-3, 3e-3), seeds=1)
    train = replace(preset.population("train"), patients=5)
    validation = replace(preset.population("validation"), patients=4)
    for group in (train, validation):
        phantoms(experiment.work / "cohorts" / group.name, group)
    found = replace(experiment, preset=preset).members((Arm.ORDER, Arm.GAP), train, validation)
    names = sorted(path.stem for path in (experiment.work / "networks" / "train").glob("*.pt"))
    assert sorted(found) == [Arm.ORDER, Arm.GAP]
    assert [name for name in names if name.startswith("order-")] == ["order-0-0.001", "order-0-0.003"]
    (gap,) = (name for name in names if name.startswith("order+gap"))
    jobs = [Job(arm=Arm.ORDER, train=train, validation=validation, seed=0, rate=rate) for rate in preset.encoder_rates]
    best = max(jobs, key=lambda job: experiment.trained(job).validation)
    assert gap == f"order+gap-0-{best.rate:g}"


@pytest.mark.parametrize("name", ["cpu", "gpu"])
def test_all_growths_are_trained_on_as_many_patients_of_their_own(name: str) -> None:
    """The main growth among them; no seed serves two purposes, and all lie in their range."""
    preset = PRESETS[name]
    assert MAIN_GROWTH in preset.growths
    groups = [preset.growth_population(m, of) for m in preset.growths for of in ("train", "validation", "test")]
    assert len({each.patients for each in groups if each.name.endswith("train")}) == 1
    seeds = [seed for each in groups for seed in each.seeds]
    assert len(seeds) == len(set(seeds))
    assert 700_000 <= min(seeds) <= max(seeds) <= 799_999


def test_the_pretext_s_epoch_is_not_chosen_on_who_is_scored(experiment: Experiment) -> None:
    """Others validate the pretext of a confound; everybody of the test is scored."""
    tiny = replace(experiment, preset=replace(TINY, confound_patients=4))
    first = {"train": 650_000, "validation": 655_000, "test": 660_000}
    for kind in Confound:
        for purpose, seed in first.items():
            group = replace(TINY.population("test"), first_seed=seed, patients=4 if purpose == "train" else 2)
            phantoms(tiny.work / "cohorts" / f"confound-{kind}-{purpose}", group)
    told: list[str] = []
    tiny = replace(tiny, bar=lambda name, _: nullcontext(lambda: told.append(name)))
    figures = confound_figures(tiny)
    assert not told  # nobody else was rendered
    assert [each.n for each in figures] == [2] * 5


def test_leaks_are_found_where_they_were_put_and_nowhere_else() -> None:
    """Gap, site and field strength: 0.5 as drawn, a leak with the control on."""
    figures = leak_controls(resamples=100, histories=1500, patients=300)
    assert [each.planted_leak for each in figures] == [False, True] * 3
    for drawn, leaky in zip(figures[::2], figures[1::2], strict=True):
        assert drawn.test == leaky.test
        assert abs(drawn.estimate.value - 0.5) < 0.08
        assert leaky.estimate.value > 0.58


def test_thick_slices_blur_along_z_alone_and_leave_the_outside_dark() -> None:
    """A bright plane spreads up and down, not sideways; thicker slices spread it more; the file is not touched."""
    volumes = np.zeros((2, 16, 8, 8), dtype=np.uint8)
    volumes[:, 2:14, 2:6, 2:6] = 50
    volumes[:, 8, 3, 3] = 250
    cohort = cohort_of(volumes, [[-100, 0]], [1])
    peaks = []
    for slice_mm in (20.0, 40.0):
        thick = with_thick_slices(cohort, slice_mm).volumes
        assert thick[1].shape == volumes[1].shape
        assert (np.asarray(thick[[0, 1]])[volumes == 0] == 0).all()
        assert (thick[0][:, 4, 4][6:10] == 50).all()
        peaks.append(int(thick[0][8, 3, 3]))
    assert 250 > peaks[0] > peaks[1] > 50
    assert volumes[0, 8, 3, 3] == 250
    assert sd_voxels(7, 48) == pytest.approx(7 / 2.3548 * 48 / 189)

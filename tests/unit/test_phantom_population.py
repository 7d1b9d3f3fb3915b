"""The shifted population is other scanners, other tumours and other heads with the same disease behind them."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import nibabel
import numpy as np
import pytest

from inference.phantom import (
    INTERNAL,
    SHIFTED,
    StudyOptions,
    change_mask,
    make_patient,
    model_space_masks,
    on_real_head,
    render_model_space,
    write_study,
)
from inference.phantom.real_head import RealHeadError, class_means, maps_of_t1, real_head_maps
from inference.phantom.scanner import VENDORS
from inference.phantom.signal import Tissue, tissue_signal
from inference.phantom.tissue import template_maps
from inference.training.phantoms import Drawing, render_cohort
from inference.volume import read_series

SHAPE = (24, 32, 24)


def test_a_shifted_patient_has_the_same_disease() -> None:
    """Latents, dates, label and where the lesion lies do not know who is looking."""
    one, other = make_patient(500_003), make_patient(500_003, population=SHIFTED)
    assert one.history == other.history
    assert (one.surgery, one.event, one.label, one.sex, one.born) == (
        other.surgery,
        other.event,
        other.label,
        other.sex,
        other.born,
    )
    assert np.array_equal(one.lesion.shape.centre_mm, other.lesion.shape.centre_mm)
    assert other.population.name == "shifted"


def test_shifted_scanners_lie_outside_what_was_trained_on() -> None:
    """Sites are new; noise and slices are beyond the range; most machines are of a vendor and a field never seen."""
    seen = [visit for seed in range(60) for visit in make_patient(seed).visits]
    shifted = [visit for seed in range(60) for visit in make_patient(seed, population=SHIFTED).visits]
    assert {each.scanner.vendor for each in seen} == set(VENDORS)
    assert not {each.scanner.institution for each in seen} & {each.scanner.institution for each in shifted}
    assert max(each.nuisance.noise_fraction for each in seen) < min(each.nuisance.noise_fraction for each in shifted)
    assert max(each.nuisance.thick_slice_mm for each in seen) < min(each.nuisance.thick_slice_mm for each in shifted)
    new = [each for each in shifted if each.scanner.vendor not in VENDORS]
    assert len(new) > len(shifted) / 2
    assert {each.scanner.field_t for each in new} == {0.7, 1.0}


def test_relaxation_follows_the_field() -> None:
    """At 0.7 tesla T1 is shorter than at 1.5; grey and white matter still differ on FLAIR."""
    internal = INTERNAL.sequence("FLAIR", volumetric=False, field_t=1.5)
    shifted = SHIFTED.sequence("FLAIR", volumetric=False, field_t=0.7)
    assert shifted.te_ms > internal.te_ms
    fluid = [tissue_signal(Tissue.CSF, each, field_t=field) for each, field in ((internal, 1.5), (shifted, 0.7))]
    assert fluid[0] < fluid[1]  # the fluid is no longer nulled
    assert tissue_signal(Tissue.GREY, shifted, field_t=0.7) > 1.1 * tissue_signal(Tissue.WHITE, shifted, field_t=0.7)


def test_shifted_tumours_are_uneven_and_weaker_and_still_in_the_mask() -> None:
    """On FLAIR the same tumour stands out less and varies more; the true lesion is as large."""
    seeds = [seed for seed in range(40) if 10 < make_patient(seed).visits[-1].volume_ml < 60][:4]
    uneven = replace(INTERNAL, loose_share=SHIFTED.loose_share, necrotic_share=SHIFTED.necrotic_share)
    contrast: dict[str, list[float]] = {"internal": [], "shifted": []}
    for seed in seeds:
        for name, population in (
            ("internal", INTERNAL),
            ("shifted", uneven),
        ):
            patient = make_patient(seed, population=population)
            image, masks = render_model_space(patient, -1, shape=SHAPE), model_space_masks(patient, -1, shape=SHAPE)
            lesion = masks["lesion"] > 0.7
            brain = (masks["brain"] > 0.9) & (masks["lesion"] < 0.05)
            contrast[name].append(image[lesion].mean() / image[brain].mean())
            assert lesion.sum() > 10
    assert np.mean(contrast["shifted"]) < np.mean(contrast["internal"]) - 0.05


def test_shifted_heads_have_larger_ventricles_and_less_cortex() -> None:
    """Fluid takes a larger share of the brain."""

    def fluid(seed: int, shifted: bool) -> float:
        population = SHIFTED if shifted else INTERNAL
        patient = make_patient(seed, population=replace(population, acquisition=INTERNAL.acquisition))
        image = render_model_space(patient, -1, "T2", shape=SHAPE)
        return float(np.median(image[image > 0]))

    assert all(fluid(seed, True) > fluid(seed, False) for seed in (1, 2))


def test_change_is_known_of_shifted_patients_too() -> None:
    """The true change knows the looser and the dead parts of a tumour."""
    patient = make_patient(21, n_visits=2, population=SHIFTED)
    small, large = (
        replace(visit, log_volume=np.log(ml)) for visit, ml in zip(patient.visits, (3.0, 40.0), strict=True)
    )
    assert change_mask(replace(patient, visits=(small, large)), 0, 1, shape=SHAPE).sum() > 10


def test_a_shifted_study_is_good_dicom(tmp_path: Path) -> None:
    """The new vendor's headers can be written and read."""
    patient = next(
        p for p in (make_patient(s, population=SHIFTED) for s in range(9)) if p.visits[0].scanner.field_t < 1.5
    )
    options = StudyOptions(roles=("FLAIR",), spacing_mm=(6, 4, 4), truth=False)
    volume = read_series(write_study(patient, 0, tmp_path, options))
    assert volume.array.max() > 100


def test_a_shifted_cohort_is_rendered_like_any_other(tmp_path: Path) -> None:
    """Same outcomes as the internal patients of these seeds, other sites, other voxels."""
    drawing = Drawing(shape=(12, 16, 12), population=SHIFTED)
    cohort = render_cohort(tmp_path, [500_001, 500_002], drawing, workers=1)
    internal = [make_patient(seed) for seed in (500_001, 500_002)]
    assert list(cohort.follow_up_days) == [each.history.last_follow_up_day for each in internal]
    assert not {f"Phantom Hospital {site}" for site in range(3)} & set(cohort.sites)
    assert len(np.unique(cohort.volumes)) > 50


def test_tissue_is_told_by_brightness() -> None:
    """A T1 made of the template's own tissue, shaded and noisy, gives that tissue back."""
    maps = template_maps()
    mask = maps.distance_mm < 0
    ramp = np.linspace(0.9, 1.1, mask.shape[0], dtype=np.float32)[:, None, None]
    noise = 0.02 * np.random.default_rng(0).standard_normal(mask.shape, dtype=np.float32)
    t1 = np.where(mask, 0.2 + 0.4 * maps.grey + 0.7 * maps.white + noise, 0) * ramp
    found = maps_of_t1(np.asarray(t1, dtype=np.float32), mask)
    inner = maps.distance_mm < -8
    assert np.corrcoef(found.white[inner], maps.white[inner])[0, 1] > 0.9
    assert np.corrcoef(found.grey[inner], maps.grey[inner])[0, 1] > 0.75
    assert (found.grey + found.white).max() <= 1.001


def test_three_classes_have_three_means() -> None:
    """Well separated Gaussians are found."""
    rng = np.random.default_rng(3)
    values = np.concatenate([rng.normal(mean, 0.05, size) for mean, size in ((0.2, 800), (0.5, 3000), (0.8, 3000))])
    assert class_means(values.astype(np.float32)) == pytest.approx((0.2, 0.5, 0.8), abs=0.03)


def test_a_folder_without_a_head_is_refused(tmp_path: Path) -> None:
    """No file, two files, and a file of four dimensions are named."""
    with pytest.raises(RealHeadError, match="found 0"):
        real_head_maps(tmp_path)
    nibabel.save(nibabel.Nifti1Image(np.zeros((4, 4, 4, 2), dtype=np.float32), np.eye(4)), tmp_path / "a_T1.nii.gz")
    with pytest.raises(RealHeadError, match="three dimensions, found 4"):
        real_head_maps(tmp_path)


@pytest.mark.peer
def test_a_phantom_can_live_in_a_real_head() -> None:
    """A real T1 comes through preprocessing; the lesion lies in its parenchyma; the brain is not the template's."""
    data = os.environ.get("DICOM_NODE_REAL_DATA")
    if not data:
        pytest.skip("DICOM_NODE_REAL_DATA is not set: no real head on this machine")
    folder = Path(data) / "normal_adult_nifti"
    real = make_patient(500_003, population=on_real_head(folder))
    mni = make_patient(500_003, population=SHIFTED)
    image, masks = render_model_space(real, -1), model_space_masks(real, -1)
    voxel_ml = np.prod(np.array((189, 233, 197)) / image.shape) / 1000
    assert 900 < (masks["brain"] > 0.5).sum() * voxel_ml < 2300
    assert masks["lesion"].sum() * voxel_ml == pytest.approx(real.visits[-1].volume_ml, rel=0.4)
    other = render_model_space(mni, -1)
    both = (image > 0) & (other > 0)
    assert np.corrcoef(image[both], other[both])[0, 1] < 0.8

"""What is true at a voxel of model space lies where the image shows it."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest
from scipy import ndimage

from inference.phantom import change_mask, make_patient, model_space_masks, render_model_space

if TYPE_CHECKING:
    from inference.phantom import PhantomPatient

SHAPE = (24, 32, 24)


@pytest.fixture(scope="module")
def patient() -> PhantomPatient:
    """Return a patient whose lesion grew from small to large between two scans."""
    grown = make_patient(21, n_visits=2)
    older, newer = grown.visits
    return replace(grown, visits=(replace(older, log_volume=np.log(3.0)), replace(newer, log_volume=np.log(40.0))))


def moved(patient: PhantomPatient, *, millimetres: float) -> PhantomPatient:
    """Return the patient with a newest scan that registration left so far to one side."""
    visit = patient.visits[-1]
    nuisance = replace(
        visit.nuisance, residual_rotation_deg=(0.0, 0.0, 0.0), residual_translation_mm=(millimetres, 0.0, 0.0)
    )
    return replace(patient, visits=(*patient.visits[:-1], replace(visit, nuisance=nuisance)))


def test_masks_hold_shares_of_the_voxels_of_the_image(patient: PhantomPatient) -> None:
    """0 to 1, disease inside the brain, and the image ends exactly where half the voxel is brain."""
    masks = model_space_masks(patient, -1, shape=SHAPE)
    assert set(masks) == {"lesion", "cavity", "brain"}
    assert all(each.dtype == np.float32 and each.shape == SHAPE for each in masks.values())
    assert all(each.min() >= 0 and each.max() < 1.001 for each in masks.values())
    assert (masks["lesion"] + masks["cavity"] <= masks["brain"] + 1e-5).all()
    assert not render_model_space(patient, -1, shape=SHAPE)[masks["brain"] <= 0.5].any()


def test_the_lesion_mask_has_the_volume_of_the_history(patient: PhantomPatient) -> None:
    """Shares times the voxel's volume give the millilitres, within the deformation's share."""
    voxel_ml = np.prod(np.array((189, 233, 197)) / SHAPE) / 1000
    assert model_space_masks(patient, -1, shape=SHAPE)["lesion"].sum() * voxel_ml == pytest.approx(40, rel=0.25)


def test_what_the_mask_calls_lesion_shines_on_flair(patient: PhantomPatient) -> None:
    """The image and the mask agree on where the lesion is, at the resolution of training."""
    masks = model_space_masks(patient, -1)
    image = render_model_space(patient, -1)
    brain = (masks["brain"] > 0.5) & (masks["lesion"] < 0.1)
    assert image[masks["lesion"] > 0.7].mean() > 1.25 * image[brain].mean()


def test_masks_move_with_the_image_when_registration_is_off(patient: PhantomPatient) -> None:
    """A residual of one voxel moves lesion and brain by one voxel."""
    voxel_mm = 197 / 24
    here = model_space_masks(moved(patient, millimetres=0.0), -1, shape=SHAPE)
    there = model_space_masks(moved(patient, millimetres=voxel_mm), -1, shape=SHAPE)
    for name in ("lesion", "brain"):
        shift = np.subtract(ndimage.center_of_mass(there[name]), ndimage.center_of_mass(here[name]))
        assert shift == pytest.approx([0, 0, -1], abs=0.1)


def test_change_is_where_the_lesion_grew_and_does_not_know_registration(patient: PhantomPatient) -> None:
    """It lies around the old lesion inside the new one, is symmetric in time, and stays where it is."""
    still = moved(patient, millimetres=0.0)
    change = change_mask(still, 0, 1)
    lesion = model_space_masks(still, -1)["lesion"]
    assert change.dtype == np.bool_
    assert change.sum() > 20
    assert (lesion[change] > 0.5).all()
    assert np.array_equal(change, change_mask(moved(patient, millimetres=3.0), 0, 1))


def test_an_unchanged_lesion_has_no_change(patient: PhantomPatient) -> None:
    """A scan compared with itself, and with a visit of the same volume, shows nothing."""
    same = replace(
        patient, visits=(replace(patient.visits[0], log_volume=patient.visits[1].log_volume), patient.visits[1])
    )
    assert not change_mask(patient, 1, 1, shape=SHAPE).any()
    assert change_mask(same, 0, 1, shape=SHAPE).sum() <= 1


def test_there_is_no_truth_of_a_visit_that_never_was(patient: PhantomPatient) -> None:
    """Two visits have no third."""
    with pytest.raises(IndexError):
        model_space_masks(patient, 2, shape=SHAPE)
    with pytest.raises(IndexError):
        change_mask(patient, 0, 2, shape=SHAPE)

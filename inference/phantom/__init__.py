"""Longitudinal synthetic glioma patients on real anatomy: known growth, known events, images and DICOM from a seed."""

from inference.phantom.grid import Grid, scan_grid
from inference.phantom.latents import (
    SITE_DIALS,
    SUSPICION_DIALS,
    UPGRADE_DIALS,
    WIDE_GAP_DIALS,
    Dials,
    History,
    bayes_ceiling,
    draw_history,
    order_ceiling,
)
from inference.phantom.model_space import change_mask, model_space_masks, render_model_space
from inference.phantom.patient import PhantomPatient, Visit, make_patient
from inference.phantom.population import INTERNAL, SHIFTED, Population, on_real_head
from inference.phantom.render import ground_truth, render
from inference.phantom.slices import SliceOrder
from inference.phantom.study import StudyOptions, patient_truth, write_patient, write_study, write_volume

__all__ = [
    "INTERNAL",
    "SHIFTED",
    "SITE_DIALS",
    "SUSPICION_DIALS",
    "UPGRADE_DIALS",
    "WIDE_GAP_DIALS",
    "Dials",
    "Grid",
    "History",
    "PhantomPatient",
    "Population",
    "SliceOrder",
    "StudyOptions",
    "Visit",
    "bayes_ceiling",
    "change_mask",
    "draw_history",
    "ground_truth",
    "make_patient",
    "model_space_masks",
    "on_real_head",
    "order_ceiling",
    "patient_truth",
    "render",
    "render_model_space",
    "scan_grid",
    "write_patient",
    "write_study",
    "write_volume",
]

"""Longitudinal synthetic glioma patients on real anatomy: known growth, known events, images and DICOM from a seed."""

from inference.phantom.latents import Dials, History, bayes_ceiling, draw_history
from inference.phantom.patient import PhantomPatient, Visit, make_patient
from inference.phantom.render import Grid, ground_truth, render, render_model_space, scan_grid
from inference.phantom.slices import SliceOrder
from inference.phantom.study import StudyOptions, patient_truth, write_patient, write_study, write_volume

__all__ = [
    "Dials",
    "Grid",
    "History",
    "PhantomPatient",
    "SliceOrder",
    "StudyOptions",
    "Visit",
    "bayes_ceiling",
    "draw_history",
    "ground_truth",
    "make_patient",
    "patient_truth",
    "render",
    "render_model_space",
    "scan_grid",
    "write_patient",
    "write_study",
    "write_volume",
]

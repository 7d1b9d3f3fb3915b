"""Longitudinal synthetic glioma patients on real anatomy: known growth, known events, images and DICOM from a seed."""

from inference.phantom.latents import Dials, History, bayes_ceiling, draw_history
from inference.phantom.patient import PhantomPatient, Visit, make_patient
from inference.phantom.render import Grid, ground_truth, render, render_model_space, scan_grid

__all__ = [
    "Dials",
    "Grid",
    "History",
    "PhantomPatient",
    "Visit",
    "bayes_ceiling",
    "draw_history",
    "ground_truth",
    "make_patient",
    "render",
    "render_model_space",
    "scan_grid",
]

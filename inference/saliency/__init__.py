"""Which voxels of a scan move the answer, and how that is shown."""

from inference.bundle_parts import SaliencyMethod as Method
from inference.saliency.attribution import METHOD, attribute, describe
from inference.saliency.choice import method_at, methods_told
from inference.saliency.gradients import STEPS
from inference.saliency.maps import brain_of, flat_brain, to_map
from inference.saliency.matching import change_image, matched_baseline
from inference.saliency.question import Explainable, Question

__all__ = [
    "METHOD",
    "STEPS",
    "Explainable",
    "Method",
    "Question",
    "attribute",
    "brain_of",
    "change_image",
    "describe",
    "flat_brain",
    "matched_baseline",
    "method_at",
    "methods_told",
    "to_map",
]

"""From a volume in the scanner's space to the array a model reads, and back."""

from inference.preprocess.prepared import Preprocessed, PreprocessError, Quality
from inference.preprocess.steps import PREPROCESSING_VERSION, SHAPE, preprocess, to_native, volume_key
from inference.preprocess.template import Template, TemplateError, load_template

__all__ = [
    "PREPROCESSING_VERSION",
    "SHAPE",
    "PreprocessError",
    "Preprocessed",
    "Quality",
    "Template",
    "TemplateError",
    "load_template",
    "preprocess",
    "to_native",
    "volume_key",
]

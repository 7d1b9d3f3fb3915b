"""Networks over a patient's time line of volumes."""

from inference.models.temporal import SIZES, TemporalConfig, TemporalNetwork, build

__all__ = ["SIZES", "TemporalConfig", "TemporalNetwork", "build"]

"""Networks over a patient's time line of volumes."""

from inference.models.ensemble import Ensemble
from inference.models.network import Network, build
from inference.models.temporal import SIZES, TemporalConfig, TemporalNetwork

__all__ = ["SIZES", "Ensemble", "Network", "TemporalConfig", "TemporalNetwork", "build"]

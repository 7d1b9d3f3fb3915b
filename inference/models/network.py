"""One way to a network: by its size, and how many members it has."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal, TypeAlias, overload

from inference.models.ensemble import Ensemble
from inference.models.temporal import SIZES, TemporalNetwork

Network: TypeAlias = TemporalNetwork | Ensemble


@overload
def build(
    size: str = "small",
    *,
    outputs: int = 1,
    members: int = 1,
    channels: int = 1,
    width: int | None = None,
    own_encoders: Literal[False] = False,
    time_gap: bool = False,
) -> TemporalNetwork: ...


@overload
def build(
    size: str = "small",
    *,
    outputs: int = 1,
    members: int = 1,
    channels: int = 1,
    width: int | None = None,
    own_encoders: bool,
    time_gap: bool = False,
) -> Network: ...


def build(
    size: str = "small",
    *,
    outputs: int = 1,
    members: int = 1,
    channels: int = 1,
    width: int | None = None,
    own_encoders: bool = False,
    time_gap: bool = False,
) -> Network:
    """Build a network with random weights; the entry that a bundle's `inference.json` names.

    Args:
        size: one of `SIZES`.
        outputs: probabilities answered at once.
        members: of the ensemble: heads over one encoder, or whole networks.
        channels: roles that are stacked in a scan.
        width: of the encoder; None is that of the size.
        own_encoders: whether every member is a whole network.
        time_gap: whether the heads read when each scan was acquired.

    Raises:
        KeyError: if the size is not one of `SIZES`.
    """
    base = SIZES[size]
    config = replace(
        base, outputs=outputs, members=members, channels=channels, width=width or base.width, time_gap=time_gap
    )
    return Ensemble(config) if own_encoders else TemporalNetwork(config)

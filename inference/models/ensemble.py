"""An ensemble of whole networks: every member was trained apart and looks with an encoder of its own.

    volumes (N, C, Z, Y, X) -> features (N, M x D), member after member -> logits (M, B, outputs)

From outside it is one network with M members and long features: whoever encodes, keeps, explains or reads features
need not know. Heads over one shared encoder agree on whatever that encoder overlooked; members that were trained on
other folds, from other seeds, do not, so that their spread says something about what is not known.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Self

import torch
from torch import Tensor, nn

from inference.models.temporal import TemporalConfig, TemporalNetwork

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence


class Ensemble(nn.Module):
    """`config.members` networks of one shape, one head each."""

    def __init__(self, config: TemporalConfig) -> None:
        super().__init__()
        self.config = config
        alone = replace(config, members=1)
        self.networks = nn.ModuleList(TemporalNetwork(alone) for _ in range(config.members))

    @classmethod
    def of(cls, networks: Sequence[TemporalNetwork]) -> Self:
        """Return the ensemble of trained networks with one head each, in evaluation mode; their weights are copied.

        Raises:
            ValueError: if there is none, or they differ in shape, or one has several heads.
        """
        configs = {each.config for each in networks}
        if len(configs) != 1 or any(each.members != 1 for each in configs):
            raise ValueError(
                f"ensemble: expected networks of one shape with one head each, found {sorted(map(str, configs))}"
            )
        (config,) = configs
        ensemble = cls(replace(config, members=len(networks)))
        for own, trained in zip(ensemble.networks, networks, strict=True):
            own.load_state_dict(trained.state_dict())
        return ensemble.eval()

    def encode(self, volumes: Tensor) -> Tensor:
        """Return features (N, M x D) of volumes (N, C, Z, Y, X), each on its own."""
        return torch.cat([each.encode(volumes) for each in self._members()], dim=1)

    def head(self, features: Tensor, lengths: Tensor, days: Tensor | None = None) -> Tensor:
        """Return every member's logits (M, B, outputs) from features (B, T, M x D); `days` (B, T) as in a head."""
        parts = torch.split(features, self.config.features, dim=-1)
        members = zip(self._members(), parts, strict=True)
        return torch.cat([member.head(part, lengths, days) for member, part in members])

    def forward(self, volumes: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Return the members' mean logits (B, outputs) of volumes (B, T, C, Z, Y, X), as each of them reads them."""
        return torch.stack([each(volumes, lengths) for each in self._members()]).mean(dim=0)

    def apart(self) -> Iterator[TemporalNetwork]:
        """Yield the members, each a network with one head that can be asked alone."""
        yield from self._members()

    def _members(self) -> Iterator[TemporalNetwork]:
        for each in self.networks:
            assert isinstance(each, TemporalNetwork)  # noqa: S101 - a ModuleList forgets what it holds
            yield each

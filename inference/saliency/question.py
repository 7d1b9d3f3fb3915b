"""The answer as a function of one scan alone: all other scans of the patient stay as they are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import torch

if TYPE_CHECKING:
    from torch import Tensor


class Explainable(Protocol):
    """All that an explanation asks of a network, however many encoders and heads stand behind it."""

    def encode(self, volumes: Tensor) -> Tensor:
        """Return features (N, D) of volumes (N, C, Z, Y, X), each on its own."""

    def head(self, features: Tensor, lengths: Tensor, days: Tensor | None = None) -> Tensor:
        """Return every member's logits (members, B, outputs) from features (B, T, D) of scans of these days (B, T)."""


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Question:
    """What the first output answers when another scan stands at one place of a time line.

    `features` are those of all scans, (T, D); the scan at `time_point`, from 0, is the one that varies. `days` (T,) say
    when they were acquired, from any origin; without them the answer is that of a network that must not see when.
    """

    network: Explainable
    features: Tensor
    time_point: int
    days: Tensor | None = None

    def logits(self, volumes: Tensor) -> Tensor:
        """Return the members' mean logit (N,) with each of the volumes (N, C, Z, Y, X) at the place in question."""
        encoded = self.network.encode(volumes).to(self.features.dtype)  # (N, D)
        lines = self.features.expand(len(encoded), -1, -1)  # (N, T, D)
        before, after = lines[:, : self.time_point], lines[:, self.time_point + 1 :]
        days = None if self.days is None else self.days.expand(len(encoded), -1)  # (N, T)
        lengths = torch.full((len(encoded),), lines.shape[1])
        # cuDNN refuses the gradient of an LSTM in evaluation mode; the other kernels know no such rule.
        with torch.backends.cudnn.flags(enabled=not torch.is_grad_enabled()):
            answers = self.network.head(torch.cat([before, encoded[:, None], after], dim=1), lengths, days)
        return answers[:, :, 0].mean(dim=0)

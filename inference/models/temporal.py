"""The published temporal network: one 3-D ResNet18 for every scan, self-attention over scans, LSTM, linear head.

    volumes (B, T, C, Z, Y, X) -> features (B, T, D) -> attention -> LSTM, last real scan -> logits (B, outputs)

Encoder and head are separate, so that the features of a scan are computed once in its life. Padded places of a batch
are never encoded, are masked in the attention, and the packed LSTM ends on the last real scan: the published code pads
with zero volumes and reads the last padded step, which makes its answer depend on the padding.

Source: Tak et al., NEJM AI 2025 (10.1056/AIoa2400703), re-implemented from its description. `residual`,
`standardise`, `bright_from` and several `members` are ours, for little data and few hours: an untrained attention
averages all scans and hides their order, an LSTM starts saturated by what all scans have in common, and disease is what
is brighter than brain on FLAIR.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import torch
from monai.networks.nets.resnet import ResNet
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence

if TYPE_CHECKING:
    pass

ATTENTION_HEADS = 8
_ENCODER_BATCH = 24  # volumes at once, without gradients: bounds memory on long time lines


@dataclass(frozen=True, slots=True, kw_only=True)
class TemporalConfig:
    """What decides the shapes of a network.

    `input_shape` is (Z, Y, X); features have 8 x `width` dimensions. `margin` voxels at the ends of each axis are not
    read: the field of view of a template is wider than its brain, and what lies there is always 0.
    """

    width: int
    input_shape: tuple[int, int, int]
    channels: int = 1
    outputs: int = 1
    hidden: int = 512
    stem_kernel: int = 7
    dropout: float = 0.2
    margin: tuple[tuple[int, int], tuple[int, int], tuple[int, int]] = ((0, 0), (0, 0), (0, 0))  # (Z, Y, X)
    bright_from: float | None = None  # read only what exceeds this multiple of the brain's mean
    residual: bool = False
    standardise: bool = False  # features to mean 0, SD 1 over the training scans
    time_gap: bool = False  # add when each scan was acquired to its features; the published method does not
    members: int = 1  # heads of the ensemble over the one encoder

    @property
    def features(self) -> int:
        """Return the length of a scan's feature vector."""
        return 8 * self.width


# Source of "published": research of record §1.3; its 96 x 128 x 96 is (X, Y, Z), which reads the same as (Z, Y, X).
SIZES: dict[str, TemporalConfig] = {
    "published": TemporalConfig(width=64, input_shape=(96, 128, 96), hidden=512),
    "small": TemporalConfig(
        width=16,
        input_shape=(48, 64, 48),
        hidden=128,
        stem_kernel=5,
        margin=((0, 6), (4, 4), (4, 4)),  # of the stretched MNI152
        bright_from=1.2,
        residual=True,
        standardise=True,
    ),
}


class TemporalHead(nn.Module):
    """Self-attention over the scans of a patient, an LSTM in their order, a linear layer on the last scan."""

    def __init__(self, config: TemporalConfig) -> None:
        super().__init__()
        self.residual = config.residual
        self.gap = nn.Linear(2, config.features) if config.time_gap else None
        self.attention = nn.MultiheadAttention(config.features, ATTENTION_HEADS, batch_first=True)
        self.lstm = nn.LSTM(config.features, config.hidden, batch_first=True)
        self.dropout = nn.Dropout(config.dropout)
        self.classifier = nn.Linear(config.hidden, config.outputs)

    def forward(self, features: Tensor, lengths: Tensor, days: Tensor | None = None) -> Tensor:
        """Return logits (B, outputs) from features (B, T, D) whose first `lengths[b]` places are real.

        `days` (B, T), from any origin, count only in a network with `time_gap`; None hides them from it.
        """
        if self.gap is not None and days is not None:
            features = features + self.gap(_gaps(days.to(features), lengths.to(features.device)))
        places = torch.arange(features.shape[1], device=features.device)
        padding = places[None, :] >= lengths.to(features.device)[:, None]  # (B, T)
        mixed, _ = self.attention(features, features, features, key_padding_mask=padding, need_weights=False)
        if self.residual:
            mixed = mixed + features
        packed = pack_padded_sequence(mixed, lengths.cpu(), batch_first=True, enforce_sorted=False)
        _, (last, _) = self.lstm(packed)  # (1, B, hidden): the state after the last real scan
        logits: Tensor = self.classifier(self.dropout(torch.relu(last[0])))
        return logits


class TemporalNetwork(nn.Module):
    """The shared encoder and one head per member of the ensemble."""

    def __init__(self, config: TemporalConfig) -> None:
        super().__init__()
        self.config = config
        planes = [config.width * factor for factor in (1, 2, 4, 8)]
        self.encoder = ResNet(
            "basic",
            [2, 2, 2, 2],
            planes,
            n_input_channels=config.channels,
            conv1_t_size=config.stem_kernel,
            conv1_t_stride=2,
            feed_forward=False,
        ).to(memory_format=torch.channels_last_3d)  # 1.5 times faster on a CPU (measured, forward and backward)
        self.norm = nn.BatchNorm1d(config.features, affine=False) if config.standardise else nn.Identity()
        self.heads = nn.ModuleList(TemporalHead(config) for _ in range(config.members))

    def stages(self) -> list[nn.Module]:
        """Return the encoder's parts from input to output, for learning rates that differ between them."""
        encoder = self.encoder
        return [
            nn.ModuleList([encoder.conv1, encoder.bn1]),
            encoder.layer1,
            encoder.layer2,
            encoder.layer3,
            encoder.layer4,
        ]

    def reset_classifiers(self) -> None:
        """Give every head a new last layer, for another question than the one it was trained on."""
        for module in self.heads:
            head = cast("TemporalHead", module)
            head.classifier.reset_parameters()

    def encode(self, volumes: Tensor) -> Tensor:
        """Return features (N, D) of volumes (N, C, Z, Y, X), each on its own."""
        if torch.is_grad_enabled():
            return self._encode(volumes)
        return torch.cat([self._encode(part) for part in torch.split(volumes, _ENCODER_BATCH)])

    def _encode(self, volumes: Tensor) -> Tensor:
        (z_low, z_high), (y_low, y_high), (x_low, x_high) = self.config.margin
        depth, rows, columns = volumes.shape[2:]
        inner = volumes[:, :, z_low : depth - z_high, y_low : rows - y_high, x_low : columns - x_high]
        if self.config.bright_from is not None:
            inner = (inner / _brain_mean(inner) - self.config.bright_from).clamp(min=0)
        features: Tensor = self.norm(self.encoder(inner.contiguous(memory_format=torch.channels_last_3d)))
        return features

    def head(self, features: Tensor, lengths: Tensor, days: Tensor | None = None) -> Tensor:
        """Return every member's logits (members, B, outputs) from features (B, T, D); `days` (B, T) as in a head."""
        return torch.stack([head(features, lengths, days) for head in self.heads])

    def forward(self, volumes: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Return the members' mean logits (B, outputs) of volumes (B, T, C, Z, Y, X); padded places are not read.

        Volumes (B, C, Z, Y, X) are time lines of one scan each, as `monai.bundle verify_net_in_out` asks; where no
        lengths are given, no place is padded.
        """
        if volumes.ndim == 5:
            volumes = volumes[:, None]
        if lengths is None:
            lengths = torch.full(volumes.shape[:1], volumes.shape[1])
        return self.head(self.encode_padded(volumes, lengths), lengths).mean(dim=0)

    def encode_padded(self, volumes: Tensor, lengths: Tensor) -> Tensor:
        """Return features (B, T, D) of volumes (B, T, C, Z, Y, X), zero where `lengths` says there is no scan."""
        real = torch.arange(volumes.shape[1], device=volumes.device)[None, :] < lengths.to(volumes.device)[:, None]
        encoded = self.encode(volumes[real])  # (sum of lengths, D)
        features = encoded.new_zeros((*real.shape, encoded.shape[-1]))
        return features.masked_scatter(real[..., None], encoded)


def _gaps(days: Tensor, lengths: Tensor) -> Tensor:
    """Return (B, T, 2): log of the days since the scan before, and years before the newest of `lengths[b]` scans."""
    since = torch.diff(days, dim=1, prepend=days[:, :1]).clamp(min=0)
    newest = days.gather(1, lengths[:, None] - 1)
    return torch.stack([torch.log1p(since) / 6, (newest - days).clamp(min=0) / 365], dim=-1)


def _brain_mean(volumes: Tensor) -> Tensor:
    """Return the mean (N, 1, 1, 1, 1) over what is not background, 0, in volumes (N, C, Z, Y, X); 1 if all is."""
    axes = (1, 2, 3, 4)
    brain = (volumes > 0).sum(axes, keepdim=True)
    mean = volumes.sum(axes, keepdim=True) / brain.clamp(min=1)
    return torch.where(brain > 0, mean, torch.ones_like(mean))

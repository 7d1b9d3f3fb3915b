"""Occlusion: how far the logit falls when a block of the scan is replaced by a flat brain.

Two grids of blocks, the second shifted by half a block, give a finer map than one. Only the occluded scan is encoded
again. No gradient is needed, so nothing depends on how smooth the network is.

Source: Zeiler and Fergus, Visualizing and Understanding Convolutional Networks, 2014 (arXiv 1311.2901).
"""

from __future__ import annotations

from itertools import product
from typing import TYPE_CHECKING

import torch

from inference.saliency.maps import brain_of, flat_brain

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor

    from inference.saliency.question import Question

BLOCKS = 12  # along each axis: blocks of about 16 mm in the field of view of a template
_BATCH = 24

Box = tuple[slice, slice, slice]


def occlusion(question: Question, volume: Tensor) -> Tensor:
    """Return (C, Z, Y, X): the fall of the logit when the block around a voxel is flat, mean over both grids."""
    flat, brain = flat_brain(volume), brain_of(volume)
    falls = torch.zeros_like(volume)
    with torch.no_grad():
        whole = question.logits(volume[None])[0]
        boxes = [box for half in (False, True) for box in _boxes(volume.shape[1:], half=half) if brain[:, *box].any()]
        for start in range(0, len(boxes), _BATCH):
            some = boxes[start : start + _BATCH]
            occluded = volume.expand(len(some), *volume.shape).clone()
            for each, box in zip(occluded, some, strict=True):
                each[:, *box] = flat[:, *box]
            for fall, box in zip(whole - question.logits(occluded), some, strict=True):
                falls[:, *box] += fall
    return falls / 2 * brain


def _boxes(shape: torch.Size, *, half: bool) -> Iterator[Box]:
    """Yield the blocks of a grid over (Z, Y, X), shifted back by half a block if `half`."""
    axes = []
    for size in shape:
        edge = max(2, round(size / BLOCKS))  # at least 2, or half a block would be none
        axes.append([slice(max(0, start), start + edge) for start in range(-(edge // 2) if half else 0, size, edge)])
    yield from product(*axes)

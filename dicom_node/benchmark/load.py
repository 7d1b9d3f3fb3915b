"""Inference as a neighbour of reception: a loop of 3D convolutions, niced as a worker is, until it is ended.

Run as a program of its own: `python -m dicom_node.benchmark.load NICENESS` prints a line once it is at work.
"""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from dicom_node.errors import NodeError
from dicom_node.settings import Inference

if TYPE_CHECKING:
    from collections.abc import Iterator

VOXELS: Final = 96  # of an edge, as the encoder sees a scan


@contextmanager
def inferring(*, wanted: bool = True) -> Iterator[None]:
    """Have something infer on all cores for as long as the block lasts, if wanted.

    Raises:
        NodeError: if it cannot be started.
    """
    if not wanted:
        yield
        return
    command = [sys.executable, "-m", "dicom_node.benchmark.load", str(Inference().nice)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:  # noqa: S603 - our own module
        try:
            assert process.stdout is not None  # noqa: S101 - opened as a pipe above
            if not process.stdout.readline():
                msg = f"inference as a load: expected it at work, found exit code {process.wait()}"
                raise NodeError(msg)
            yield
        finally:
            process.kill()


def main(niceness: int) -> None:
    """Convolve for ever."""
    import torch  # noqa: PLC0415 - only this process needs it

    os.nice(niceness)
    network = torch.nn.Sequential(
        torch.nn.Conv3d(1, 16, 3, padding=1), torch.nn.ReLU(), torch.nn.Conv3d(16, 16, 3, padding=1)
    )
    volume = torch.rand(1, 1, VOXELS, VOXELS, VOXELS)  # (B, C, Z, Y, X)
    with torch.inference_mode():
        network(volume)
        print("at work", flush=True)  # noqa: T201 - what the parent waits for
        while True:
            network(volume)


if __name__ == "__main__":
    main(int(sys.argv[1]))

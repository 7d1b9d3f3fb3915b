"""The same scan gives the same bits on a machine of any number of cores."""

from __future__ import annotations

import numpy as np
import SimpleITK as sitk  # noqa: N813 - the library's own short name

from inference.preprocess.bias import estimate_log_bias
from inference.preprocess.images import to_image


def test_the_bias_field_does_not_depend_on_the_number_of_cores() -> None:
    """ITK's default is one thread per core, and N4's sums are added up thread by thread."""
    z, y, x = np.meshgrid(*(np.linspace(-1, 1, size) for size in (22, 28, 24)), indexing="ij")
    head = 400.0 * ((x / 0.8) ** 2 + (y / 0.9) ** 2 + (z / 0.8) ** 2 < 1) * (1 + 0.3 * x + 0.2 * y * z)
    noisy = head + np.random.default_rng(3).rayleigh(8.0, head.shape)
    coarse = to_image(noisy.astype(np.float32), np.diag([8.0, 8.0, 8.0, 1.0]))
    before = sitk.ProcessObject.GetGlobalDefaultNumberOfThreads()
    try:
        fields = []
        for threads in (1, 2, 5):
            sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(threads)
            fields.append(sitk.GetArrayFromImage(estimate_log_bias(coarse)).tobytes())
    finally:
        sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(before)
    assert fields[0] == fields[1] == fields[2]

"""Loaded by Python before the node where this folder is on PYTHONPATH: kill points, mutants, a predictor of digests."""

from __future__ import annotations

import os
import sys

import kill_points
import mutants

if kill_points.PREDICTOR_VARIABLE in os.environ:
    sys.meta_path.insert(0, kill_points.AfterImport({"inference.predictor": mutants.answer_from_digests}))
if mutants.VARIABLE in os.environ:
    mutants.install(os.environ[mutants.VARIABLE])
if kill_points.FOLDER_VARIABLE in os.environ:  # last, so that what stands there by then is watched
    kill_points.install(kill_points.KillPoints(os.environ[kill_points.FOLDER_VARIABLE]))

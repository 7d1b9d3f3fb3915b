"""Scans brought into the model's space by several processes, each scan by the code that the node runs.

What a scan gives depends on its bytes, the role, the template, the shape and the version of preprocessing, and is kept
under a name made of these, in the node's own cache format. So a run that was killed goes on where it was, a torn file
does not count, and a volume prepared here is to the bit the one that the node computes. A scan that fails, or takes
its process down with it, is set aside with the reason; the others go on.
"""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import threading
from collections import deque
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import TYPE_CHECKING

import numpy as np

from inference.feature_cache import recall, remember
from inference.preprocess import Preprocessed, load_template, preprocess, volume_key
from inference.training.sources import find_source, read_source

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator, Sequence
    from pathlib import Path

    from inference.preprocess import Quality, Template


@dataclass(frozen=True, slots=True, kw_only=True)
class Space:
    """What scans are prepared for: a model's role and input shape (Z, Y, X), and the template; None is MNI152."""

    role: str
    shape: tuple[int, int, int]
    template: Path | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One scan to prepare: the line of the table, and the path of the role's series."""

    line: int
    path: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What became of a scan: the volume's name in the cache with digests and quality, or why there is none."""

    line: int
    failure: str = ""
    source_digest: str = ""
    key: str = ""
    volume_digest: str = ""
    quality: Quality | None = None


def prepare_scans(jobs: Sequence[Job], space: Space, cache: Path, *, workers: int) -> Iterator[Outcome]:
    """Yield what became of each scan, as they finish.

    Raises:
        TemplateError: if the template cannot be used.
        OSError: if the cache cannot be written.
    """
    loaded_template(space.template)  # a wrong one is told here and once, not by every scan
    cache.mkdir(parents=True, exist_ok=True)
    work = partial(prepare_scan, space=space, cache=cache)
    waiting = deque(jobs)
    while waiting:
        suspects = yield from _until_broken(work, waiting, workers)
        for job in suspects:  # one of them took a process down: each gets a process of its own
            yield _alone(work, job)


def _until_broken(
    work: Callable[[Job], Outcome], waiting: deque[Job], workers: int
) -> Generator[Outcome, None, list[Job]]:
    """Yield outcomes until nothing is waiting or a process dies; return what was under way when it did."""
    under_way: dict[Future[Outcome], Job] = {}
    with _pool(workers) as pool:
        while waiting or under_way:
            while waiting and len(under_way) < workers:  # no more than that, so that few are suspects
                job = waiting.popleft()
                try:
                    under_way[pool.submit(work, job)] = job
                except BrokenProcessPool:
                    return [*under_way.values(), job]
            for future in wait(under_way, return_when=FIRST_COMPLETED).done:
                try:
                    outcome = future.result()
                except BrokenProcessPool:
                    return list(under_way.values())
                del under_way[future]
                yield outcome
    return []


def prepare_scan(job: Job, space: Space, cache: Path) -> Outcome:
    """Read and preprocess one scan, or recall it; whatever is wrong with it is the outcome's failure.

    Raises:
        OSError: if the cache cannot be written.
    """
    try:
        source = find_source(job.path)
        template = loaded_template(space.template)
        key = volume_key(source.digest, space.role, template, space.shape)
        recalled = recall(cache, key, Preprocessed)
        prepared = recalled or preprocess(read_source(source), template, shape=space.shape)
    except Exception as error:  # noqa: BLE001 - the edge: one scan's bytes must not end the others' work
        return Outcome(line=job.line, failure=f"{type(error).__name__}: {error}")
    if recalled is None:
        remember(cache, key, prepared)  # a full disk is nobody's scan: it ends the run, and the next one goes on here
    return Outcome(
        line=job.line,
        source_digest=source.digest,
        key=key,
        volume_digest=array_digest(prepared.array),
        quality=prepared.quality,
    )


def array_digest(array: np.ndarray[tuple[int, ...], np.dtype[np.float32]]) -> str:
    """Return "sha256:..." over shape and values of a volume."""
    content = hashlib.sha256(repr(array.shape).encode())
    content.update(np.ascontiguousarray(array, dtype="<f4").tobytes())
    return f"sha256:{content.hexdigest()}"


@lru_cache(maxsize=1)
def loaded_template(path: Path | None) -> Template:
    """Load a template once per process: it takes seconds, and every scan needs it.

    Raises:
        TemplateError: if it cannot be used.
    """
    return load_template(path)


def _alone(work: Callable[[Job], Outcome], job: Job) -> Outcome:
    """Prepare one scan in a process of its own, which may die of it."""
    with _pool(1) as pool:
        try:
            return pool.submit(work, job).result()
        except BrokenProcessPool:
            return Outcome(line=job.line, failure="the process that read it died: out of memory, or a decoder's crash")


@contextmanager
def _pool(workers: int) -> Iterator[ProcessPoolExecutor]:
    """Yield a pool of processes; what has not begun is dropped at the end, so that an interruption is prompt."""
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(workers, mp_context=context, initializer=_begin)
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)


def _begin() -> None:
    """Let a worker end with its parent: nobody would take what it finds, or stop it."""
    parent = multiprocessing.parent_process()
    if parent is None:
        return

    def follow() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=follow, daemon=True).start()

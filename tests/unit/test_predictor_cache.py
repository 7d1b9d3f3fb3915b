"""The cache of a predictor: names made of everything that matters, files written whole, bad ones computed anew."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from inference.feature_cache import Features, cache_key, recall, recall_or_compute, remember

VALUE = Features(values=np.arange(5, dtype=np.float32))


def test_parts_do_not_run_into_each_other() -> None:
    """Two keys differ if any part differs, however the letters fall."""
    assert cache_key("ab", "c") != cache_key("a", "bc")
    assert cache_key("a", "b") == cache_key("a", "b")


def test_what_was_remembered_is_recalled(tmp_path: Path) -> None:
    """One file under its final name, and nothing else."""
    remember(tmp_path / "cache", "key", VALUE)
    found = recall(tmp_path / "cache", "key", Features)
    assert found is not None
    assert np.array_equal(found.values, VALUE.values)
    assert [path.name for path in (tmp_path / "cache").iterdir()] == ["key.npz"]


@pytest.mark.parametrize("damage", [b"", b"PK\x03\x04", b"no archive at all"])
def test_a_file_that_cannot_be_read_is_as_good_as_none(tmp_path: Path, damage: bytes) -> None:
    """Empty, torn or foreign: the value is computed and stored again."""
    (tmp_path / "key.npz").write_bytes(damage)
    assert recall(tmp_path, "key", Features) is None
    recall_or_compute(tmp_path, "key", Features, lambda: VALUE)
    assert recall(tmp_path, "key", Features) is not None


def test_every_truncation_and_flipped_bit_is_noticed(tmp_path: Path) -> None:
    """The archive's checksums are read before its content is."""
    remember(tmp_path, "key", VALUE)
    whole = (tmp_path / "key.npz").read_bytes()
    for size in range(0, len(whole) - 22, 7):
        (tmp_path / "key.npz").write_bytes(whole[:size])
        assert recall(tmp_path, "key", Features) is None
    place = whole.index(VALUE.values.tobytes())
    (tmp_path / "key.npz").write_bytes(whole[:place] + b"\xff" + whole[place + 1 :])
    assert recall(tmp_path, "key", Features) is None


def test_without_a_folder_nothing_is_kept() -> None:
    """The value is computed each time."""
    calls: list[Features] = []

    def compute() -> Features:
        calls.append(VALUE)
        return VALUE

    recall_or_compute(None, "key", Features, compute)
    recall_or_compute(None, "key", Features, compute)
    assert len(calls) == 2


def test_a_value_that_cannot_be_written_leaves_no_part_behind(tmp_path: Path) -> None:
    """The temporary file is removed, and the old value stays."""

    class Broken(Features):
        def save(self, path: Path) -> None:
            path.write_bytes(b"half")
            raise OSError("disk full")

    remember(tmp_path, "key", VALUE)
    with pytest.raises(OSError, match="disk full"):
        remember(tmp_path, "key", Broken(values=VALUE.values))
    assert [path.name for path in tmp_path.iterdir()] == ["key.npz"]
    assert recall(tmp_path, "key", Features) is not None

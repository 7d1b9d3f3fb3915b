"""The pins: what is installed is pinned and stands in the bill of materials, under licences that we can have."""

from __future__ import annotations

import functools
import importlib.metadata
import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parents[2]
OURS = "temporal-dicom-node"
SAID_IN_FREE_TEXT = {"monai", "protobuf"}  # their licence, which the bill leaves out and the test of licences reads
EXTRAS = ("postgresql", "train", "dev")
TOOLS = {"pip", "setuptools", "wheel"}  # of the virtual environment itself
GPL = re.compile(r"\bA?GPL|General Public License", re.IGNORECASE)
LESSER = re.compile(r"\bLGPL|Lesser|Library General", re.IGNORECASE)


def pins() -> dict[str, str]:
    """Return every pin: canonical name -> version."""
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    found = [line.split("==") for line in lines if line and not line.startswith("#")]
    assert all(len(each) == 2 for each in found), "expected NAME==VERSION alone"
    return {canonicalize_name(name): version for name, version in found}


@functools.cache
def installed() -> dict[str, importlib.metadata.Distribution]:
    """Return what is installed, by canonical name."""
    return {canonicalize_name(each.name): each for each in importlib.metadata.distributions()}


def required(extras: tuple[str, ...] = ()) -> list[str]:
    """Return what pyproject.toml requires, with some of its extras."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    found = [*project["dependencies"]]
    for extra in extras:
        found += [each for each in project["optional-dependencies"][extra] if not each.startswith(OURS)]
    return found


def needed(extras: tuple[str, ...] = ()) -> set[str]:
    """Return the names of what we need, and of what that needs, on this platform."""
    distributions = installed()
    seen: set[tuple[str, frozenset[str]]] = set()
    open_ = [Requirement(each) for each in required(extras)]
    while open_:
        requirement = open_.pop()
        key = (canonicalize_name(requirement.name), frozenset(requirement.extras))
        if key in seen:
            continue
        seen.add(key)
        for text in (distributions[key[0]].requires or ()) if key[0] in distributions else ():
            inner = Requirement(text)
            if inner.marker is None or any(inner.marker.evaluate({"extra": each}) for each in (*key[1], "")):
                open_.append(inner)
    return {name for name, _ in seen}


def licence(distribution: importlib.metadata.Distribution) -> str:
    """Return what a distribution says of its licence: expression, classifiers, or the first line of a text."""
    metadata = distribution.metadata
    told = [metadata.get("License-Expression") or ""]
    told += [each.partition("::")[2] for each in metadata.get_all("Classifier") or () if each.startswith("License ::")]
    told += [(metadata.get("License") or "").strip().partition("\n")[0][:120]]
    return "; ".join(each.strip() for each in told if each.strip())


def is_gpl_only(text: str) -> bool:
    """Say whether every licence that a text offers is the GPL or AGPL."""
    return all(GPL.search(each) and not LESSER.search(each) for each in re.split(r";|\s(?:OR|or)\s", text))


@pytest.fixture(scope="module")
def bill(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The bill of materials that `make sbom` makes; there it is held against CycloneDX's schema, which takes longer."""
    path = tmp_path_factory.mktemp("sbom") / "sbom.cdx.json"
    recipe = (ROOT / "Makefile").read_text(encoding="utf-8").split("\nsbom:")[1].split("\n\n")[0].split()
    options = [each for each in recipe[recipe.index("environment") : -1] if each != "\\"]
    options[options.index("sbom.cdx.json")] = str(path)
    command = [sys.executable, "-m", "cyclonedx_py", *options, "--no-validate", sys.executable]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    text = path.read_text(encoding="utf-8")
    found: dict[str, Any] = json.loads(text)
    return found


def test_what_is_installed_is_what_is_pinned() -> None:
    """Every pin that is installed has its version, and everything that we need is pinned."""
    found, wanted = installed(), pins()
    wrong = {
        name: (version, found[name].version)
        for name, version in wanted.items()
        if name in found and Version(found[name].version.partition("+")[0]) != Version(version)
    }
    assert not wrong
    all_needed = needed(EXTRAS) & set(found) - TOOLS
    cuda = {name for name in all_needed if name.startswith(("nvidia-", "triton", "cuda-"))}  # of torch's GPU build
    assert all_needed - cuda <= set(wanted), all_needed - cuda - set(wanted)


def test_every_pin_is_wanted() -> None:
    """No pin is left over from a dependency that is gone."""
    assert set(pins()) & set(installed()) <= needed(EXTRAS)


def test_no_hard_dependency_is_under_the_gpl_alone() -> None:
    """Permissive, MPL, or LGPL used as a library; every one says its licence."""
    hard = needed() - TOOLS
    told = {name: licence(installed()[name]) for name in hard if name in installed()}
    assert len(told) > 40
    assert not [name for name, text in told.items() if not text]
    assert not {name: text for name, text in told.items() if is_gpl_only(text)}


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("GPL-3.0-or-later", True),
        ("OSI Approved :: GNU General Public License v2 (GPLv2)", True),
        ("AGPL-3.0-only", True),
        ("LGPL-3.0-only", False),
        ("OSI Approved :: GNU Lesser General Public License v3 (LGPLv3)", False),
        ("MIT", False),
        ("Apache-2.0 OR GPL-2.0-only", False),
    ],
)
def test_the_gpl_is_recognised(text: str, *, found: bool) -> None:
    """What the test above looks for, and what it lets pass."""
    assert is_gpl_only(text) is found


@pytest.mark.timeout(600)
def test_every_pin_stands_in_the_bill_of_materials(bill: dict[str, Any]) -> None:
    """Each with its version and a licence; and ours is what the bill is of."""
    listed = {canonicalize_name(each["name"]): each for each in bill["components"]}
    missing = [name for name in pins() if name in installed() and name not in listed]
    assert not missing
    wrong = [
        name for name, version in pins().items() if name in listed and not listed[name]["version"].startswith(version)
    ]
    assert not wrong
    hard = needed() & set(listed)
    assert {name for name in hard if not listed[name].get("licenses")} <= SAID_IN_FREE_TEXT
    assert (bill["bomFormat"], bill["specVersion"]) == ("CycloneDX", "1.6")
    assert canonicalize_name(bill["metadata"]["component"]["name"]) == OURS

"""Where the files that ship with the program lie: in the wheel beside the package, in a checkout at its top."""

from __future__ import annotations

from pathlib import Path

from dicom_node.errors import ConfigError


def config_folder() -> Path:
    """Return the folder with the shipped node.yaml, selection.yaml and tasks/."""
    package = Path(__file__).parent
    installed = package / "config"
    return installed if installed.is_dir() else package.parent / "config"


def task_file(entry: str) -> Path:
    """Return the YAML file of a task: a path as it is, a name as config/tasks/<name>.yaml.

    Raises:
        ConfigError: if no such file exists.
    """
    path = Path(entry)
    if path.suffix not in {".yaml", ".yml"}:
        path = config_folder() / "tasks" / f"{entry.replace('-', '_')}.yaml"
    if not path.is_file():
        shipped = sorted(each.stem.replace("_", "-") for each in (config_folder() / "tasks").glob("*.yaml"))
        raise ConfigError((f"tasks: {entry!r}: no such file; shipped tasks: {', '.join(shipped)}",))
    return path


def selection_file(path: Path | None) -> Path:
    """Return the series rules to use: the site's own, or the shipped ones."""
    return path or config_folder() / "selection.yaml"

"""Read the YAML documents of the time line (selection rules, tasks) and tell every problem at once."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from dicom_node.errors import ConfigError

if TYPE_CHECKING:
    from pathlib import Path


class Document(BaseModel):
    """Immutable, and an unknown key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")


DocumentT = TypeVar("DocumentT", bound=Document)


def load_document(path: Path, kind: type[DocumentT]) -> DocumentT:
    """Read and check one YAML file.

    Raises:
        ConfigError: with one line per problem: file, key, value, rule.
    """
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError((f"{path}: cannot be read: {error.strerror}",)) from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError((f"{path}: not valid YAML: {' '.join(str(error).split())}",)) from error
    return check_document(content, kind, source=str(path))


def check_document(content: object, kind: type[DocumentT], *, source: str) -> DocumentT:
    """Check parsed YAML; `source` names the file in the messages.

    Raises:
        ConfigError: with one line per problem: file, key, value, rule.
    """
    try:
        return kind.model_validate(content)
    except ValidationError as error:
        lines = []
        for finding in error.errors(include_url=False):
            key = ".".join(str(part) for part in finding["loc"]) or "(whole file)"
            value = finding["input"]
            shown = "" if isinstance(value, dict | list) or finding["type"] == "missing" else f" = {value!r}"
            rule = "unknown key" if finding["type"] == "extra_forbidden" else finding["msg"]
            lines.append(f"{source}: {key}{shown}: {rule}")
        raise ConfigError(tuple(lines)) from error

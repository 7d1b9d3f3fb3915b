"""Read YAML documents into checked, immutable values, and tell every problem at once: file, key, value, rule."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, ValidationError

from dicom_node.errors import ConfigError

if TYPE_CHECKING:
    from pathlib import Path


class Document(BaseModel):
    """Immutable, and an unknown key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")


def _compiles(pattern: str) -> str:
    try:
        re.compile(pattern)
    except re.error as error:
        msg = f"not a regular expression: {error}"
        raise ValueError(msg) from error
    return pattern


Regex = Annotated[str, AfterValidator(_compiles)]
DocumentT = TypeVar("DocumentT", bound=Document)


def load_document(path: Path, kind: type[DocumentT]) -> DocumentT:
    """Read and check one YAML file.

    Raises:
        ConfigError: with one line per problem: file, key, value, rule.
    """
    try:
        content = yaml.load(path.read_text(encoding="utf-8"), Loader=_UniqueKeyLoader)  # noqa: S506 - a SafeLoader
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
            shown = "" if isinstance(value, dict | list) or finding["type"] == "missing" else f" = {_masked(value)}"
            rule = "unknown key" if finding["type"] == "extra_forbidden" else finding["msg"]
            lines.append(f"{source}: {key}{shown}: {rule}")
        raise ConfigError(tuple(lines)) from error


def _masked(value: object) -> str:
    """Show a value without the name and password that somebody wrote into a URL, where they do not belong."""
    shown = re.sub(r"://[^/\s]*@", "://***@", repr(value))
    return re.sub(r"(?i)(password=)[^&'\s]*", r"\1***", shown)


class _UniqueKeyLoader(yaml.SafeLoader):
    """Safe YAML that refuses a key given twice, where plain YAML would silently take the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:  # noqa: FBT001, FBT002 - PyYAML's own signature
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        twice = sorted({str(key) for key in keys if keys.count(key) > 1})
        if twice:
            raise yaml.constructor.ConstructorError(None, None, f"key given twice: {twice}", node.start_mark)
        return super().construct_mapping(node, deep)

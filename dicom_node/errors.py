"""Errors say who must act: the peer, us, or nobody but time."""

from __future__ import annotations


class PeerError(Exception):
    """The sender's data or behaviour is at fault; sending the same again will fail again."""


class NodeError(Exception):
    """We are at fault: disk, database, configuration or a bug of ours; an admin must act."""


class UpstreamError(Exception):
    """A system we depend on is away; try again later, with backoff and an end."""


class ConfigError(NodeError):
    """The configuration is wrong; `problems` holds one line per bad key with file, key, value and rule."""

    def __init__(self, problems: tuple[str, ...]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems

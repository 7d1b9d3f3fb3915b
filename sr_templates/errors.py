"""The errors of this package."""

from __future__ import annotations


class ReportError(ValueError):
    """No report can be made from these values; the message says what, where, expected and found, never who."""


class TemplateError(ReportError):
    """A report template that cannot be used, with one line per fault."""

    def __init__(self, problems: tuple[str, ...]) -> None:
        super().__init__("; ".join(problems))
        self.problems = problems

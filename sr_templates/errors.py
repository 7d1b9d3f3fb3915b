"""The one error of this package."""


class ReportError(ValueError):
    """No report can be made from these values; the message says what, where, expected and found, never who."""

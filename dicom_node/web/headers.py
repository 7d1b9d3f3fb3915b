"""The headers of every answer: nothing runs in the page, nothing is loaded from elsewhere, nothing is kept."""

from __future__ import annotations

from typing import Final

_SOURCES: Final = "default-src 'none'; style-src 'self'; img-src 'self'"
SECURITY_HEADERS: Final = (
    ("Content-Security-Policy", f"{_SOURCES}; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"),
    ("X-Frame-Options", "DENY"),
    ("X-Content-Type-Options", "nosniff"),
    ("Referrer-Policy", "same-origin"),  # with no-referrer, browsers send forms with the origin "null"
    ("Cache-Control", "no-store"),
    ("Cross-Origin-Opener-Policy", "same-origin"),
    ("Cross-Origin-Resource-Policy", "same-origin"),
    ("Permissions-Policy", "camera=(), display-capture=(), geolocation=(), microphone=()"),
    ("X-Robots-Tag", "noindex, nofollow"),
)
BEHIND_TLS: Final = ("Strict-Transport-Security", "max-age=31536000")

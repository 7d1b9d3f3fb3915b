"""What machines ask: is the node alive, is it ready, and its figures. No answer names a patient."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from werkzeug import Response

from dicom_node.observe import metrics as figures
from dicom_node.observe.health import Verdict

if TYPE_CHECKING:
    from dicom_node.web.visit import Visit


def live(_visit: Visit) -> Response:
    """Say that the process answers; nothing else is asked, so that a slow database restarts nobody."""
    return _json({"live": True})


def ready(visit: Visit) -> Response:
    """Say whether images can be taken in: 200, or 503."""
    is_ready = visit.parts.examination.vitals().is_ready
    return _json({"ready": is_ready}, status=200 if is_ready else 503)


def health(visit: Visit) -> Response:
    """Say both, and how the node itself is; 503 where no images can be taken in."""
    vitals = visit.parts.examination.vitals()
    checks: dict[str, str] = {each.what: each.verdict.value for each in vitals.of_the_node}
    answer = {"live": True, "ready": vitals.is_ready, "well": vitals.verdict is not Verdict.BAD, "checks": checks}
    return _json(answer, status=200 if vitals.is_ready else 503)


def metrics(visit: Visit) -> Response:
    """Return the figures for Prometheus."""
    parts = visit.parts
    text = figures.exposition(parts.examination.vitals(), parts.settings, refused_logins=parts.throttle.refused)
    return Response(text, content_type=figures.CONTENT_TYPE)


def _json(answer: dict[str, Any], status: int = 200) -> Response:
    return Response(json.dumps(answer, sort_keys=True) + "\n", status=status, content_type="application/json")

"""The node's figures in Prometheus' text format. No label names a patient, a study, or a caller we do not know."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

from dicom_node.observe.health import Verdict

if TYPE_CHECKING:
    from collections.abc import Iterator

    from prometheus_client.core import Metric

    from dicom_node.observe.health import Vitals
    from dicom_node.settings import Settings

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
OTHER: Final = "other"  # stands for every peer that is not configured


class _Figures:
    """Gives the figures of one moment, as the library's registry asks for them."""

    def __init__(self, vitals: Vitals, settings: Settings, refused_logins: int) -> None:
        self._vitals = vitals
        self._peers = {peer.ae_title for peer in settings.receive.peers}
        self._wanted_bytes = settings.receive.min_free_disk_gb * 1e9
        self._refused_logins = refused_logins

    def collect(self) -> Iterator[Metric]:
        """Yield every figure."""
        yield from self._health()
        yield from self._work()
        yield from self._archives()
        yield from self._callers()

    def _health(self) -> Iterator[Metric]:
        found = self._vitals
        good = GaugeMetricFamily("dicom_node_good", "1: good, 0.5: wants attention, 0: bad", labels=["check"])
        values = {Verdict.GOOD: 1.0, Verdict.ATTENTION: 0.5, Verdict.BAD: 0.0}
        for each in found.checks:
            good.add_metric([each.what], values[each.verdict])
        yield good
        yield GaugeMetricFamily("dicom_node_ready", "1: images can be taken in", value=float(found.is_ready))
        yield GaugeMetricFamily("dicom_node_disk_free_bytes", "Free where the data lie", value=found.free_bytes)
        yield GaugeMetricFamily(
            "dicom_node_disk_wanted_bytes", "Below it nothing is received", value=self._wanted_bytes
        )
        seen = GaugeMetricFamily(
            "dicom_node_executor_last_seen_seconds", "Unix time a process was last heard of", labels=["executor"]
        )
        for name, at in found.seen.items():
            seen.add_metric([name], at.timestamp())
        yield seen

    def _work(self) -> Iterator[Metric]:
        cases = GaugeMetricFamily("dicom_node_cases", "Cases by task and state", labels=["task", "state"])
        for (task, state), count in self._vitals.cases.items():
            cases.add_metric([task, state], count)
        files = GaugeMetricFamily("dicom_node_files", "Received files by what became of them", labels=["state"])
        for state, count in self._vitals.files.items():
            files.add_metric([state], count)
        runs = GaugeMetricFamily("dicom_node_runs", "Runs by state", labels=["state"])
        for state, count in self._vitals.runs.items():
            runs.add_metric([state], count)
        yield from (cases, files, runs)

    def _archives(self) -> Iterator[Metric]:
        waiting = GaugeMetricFamily(
            "dicom_node_deliveries", "Deliveries by archive and state", labels=["archive", "state"]
        )
        sent = GaugeMetricFamily(
            "dicom_node_last_sent_seconds", "Unix time of the latest report sent", labels=["archive"]
        )
        oldest = GaugeMetricFamily(
            "dicom_node_oldest_unsent_seconds", "Unix time since when a report cannot be sent", labels=["archive"]
        )
        lookups = GaugeMetricFamily(
            "dicom_node_open_lookups", "Questions about priors not answered", labels=["archive"]
        )
        for each in self._vitals.archives:
            for state, count in each.dealings.counts.items():
                waiting.add_metric([each.name, state], count)
            if each.dealings.last_sent_at is not None:
                sent.add_metric([each.name], each.dealings.last_sent_at.timestamp())
            if each.dealings.oldest_open_at is not None:
                oldest.add_metric([each.name], each.dealings.oldest_open_at.timestamp())
            lookups.add_metric([each.name], each.dealings.open_lookups)
        yield from (waiting, sent, oldest, lookups)

    def _callers(self) -> Iterator[Metric]:
        latest: dict[str, float] = {}
        for each in self._vitals.receptions:
            name = each.calling_ae_title if each.calling_ae_title in self._peers else OTHER
            latest[name] = max(latest.get(name, 0.0), each.last_received_at.timestamp())
        received = GaugeMetricFamily(
            "dicom_node_last_reception_seconds", "Unix time of a peer's latest file", labels=["peer"]
        )
        for name, at in sorted(latest.items()):
            received.add_metric([name], at)
        yield received
        yield CounterMetricFamily(
            "dicom_node_refused_associations", "Associations and connections refused", value=self._vitals.refused
        )
        yield CounterMetricFamily(
            "dicom_node_refused_logins", "Logins refused since the start", value=self._refused_logins
        )


def exposition(vitals: Vitals, settings: Settings, *, refused_logins: int) -> bytes:
    """Return the figures of one moment, with memory, time and open files of this process."""
    registry = CollectorRegistry()
    registry.register(_Figures(vitals, settings, refused_logins))
    ProcessCollector(namespace="dicom_node", registry=registry)
    return generate_latest(registry)

"""The status page for admins, the answer to health probes, and the figures for Prometheus."""

"""Metrics, subset tables, statistics and figures."""

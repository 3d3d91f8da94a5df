"""Tests of schema market: rows, aggregates, loading, live data."""

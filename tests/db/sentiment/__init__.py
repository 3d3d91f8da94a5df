"""Tests of schema sentiment."""

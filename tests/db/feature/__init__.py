"""Tests of schema feature."""

"""Tests of schema ml."""

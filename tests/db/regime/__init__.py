"""Tests of schema regime."""

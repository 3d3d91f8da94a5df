"""Tests of schema analytics and what shows it."""

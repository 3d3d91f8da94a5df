"""Tests of schema ops, and of what holds for all schemas."""

"""Tests of schema backtest."""

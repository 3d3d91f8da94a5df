"""Tests of schema drift."""

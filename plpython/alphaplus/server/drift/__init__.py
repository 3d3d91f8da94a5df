"""Drift: how far what is seen now lies from what a version was trained on."""

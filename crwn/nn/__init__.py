"""Layers with a task axis, as pure functions."""

"""Layers as pure functions with a task axis."""

"""Sweep files: YAML, checked, and expanded into trials."""

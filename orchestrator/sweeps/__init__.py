"""Sweep files: YAML, validated and expanded into trials."""

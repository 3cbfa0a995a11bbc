"""Clusters: submitting jobs to them, and checking whether a sweep can run there."""

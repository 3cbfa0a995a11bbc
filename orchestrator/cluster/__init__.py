"""Clusters from the outside: submitting jobs to them, and checking whether a sweep would run there."""

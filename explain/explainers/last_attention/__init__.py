"""Explainers that read the last attention of each kind."""

"""Explainers that differentiate with respect to the input embeddings."""

"""Explainers that accumulate relevance over the attention steps."""

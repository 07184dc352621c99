"""Explainers that accumulate relevance attention step by attention step."""

"""Frozen features, computed once: an encoder that doesn't change need not be run at every step."""

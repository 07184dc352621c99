"""Traces of third-party models, one file a model; each runs the unmodified model and leaves nothing on it."""

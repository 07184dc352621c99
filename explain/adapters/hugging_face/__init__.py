"""Traces of ``transformers`` models; one file for each family of models."""

from explain.adapters.hugging_face.tracing import trace_hugging_face

__all__ = ["trace_hugging_face"]

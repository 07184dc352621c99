"""Layer-wise relevance propagation (LRP) through any model written with ordinary torch operations."""

from explain.lrp.mode import lrp

__all__ = ["lrp"]

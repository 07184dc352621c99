"""Attention, padded token batches, and cached keys and values."""

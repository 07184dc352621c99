"""Frozen CLIP encoders: loading, their token features, and pre-training of the embedded one."""

"""Typed schemas of the configs; nothing here imports torch."""

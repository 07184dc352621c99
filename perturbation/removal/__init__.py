"""Removing tokens, and reading the model without them."""

"""Rows, tables and figures of the results."""

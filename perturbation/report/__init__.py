"""Rows, tables and figures of the measures."""

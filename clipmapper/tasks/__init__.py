"""The tasks that a mapper can be trained for."""

"""Controls: scores that explain nothing, for comparison in every table."""

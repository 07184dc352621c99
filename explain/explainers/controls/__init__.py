"""Controls: scores that explain nothing, which every table stands beside."""

"""This process and others: signals, worker processes that end with it, and output without a reader."""

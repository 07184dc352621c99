"""One HTML page made from the results of any runs."""

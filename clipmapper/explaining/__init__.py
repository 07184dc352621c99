"""What the explanations of all tasks share."""

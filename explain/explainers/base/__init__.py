"""What explainers share: the base class and the machinery of each family."""

"""What the perturbation tests cost."""

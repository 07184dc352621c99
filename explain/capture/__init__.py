"""Recording of a model's forward pass, and gradients of what was recorded."""

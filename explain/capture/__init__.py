"""Recording of a forward pass, and the gradients of what was recorded."""

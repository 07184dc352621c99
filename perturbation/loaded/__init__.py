"""``clipmapper.load``: a model with what is known about it, as one object that explains its answers and tests them."""

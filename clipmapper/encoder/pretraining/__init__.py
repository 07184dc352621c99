"""Pre-training of the embedded encoder on ``shapes`` scenes, and the probes that evaluate it."""

"""Caption metrics that run Java programs."""

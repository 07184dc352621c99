"""How a pair is read by each kind of model: one file per kind."""

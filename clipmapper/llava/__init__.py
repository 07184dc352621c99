"""A small LLaVA on the embedded encoder: its words, its training on conversations about scenes, and its evaluation."""

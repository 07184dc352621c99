"""The embedded dataset ``shapes``: a seeded generator of scenes, questions and captions in the official formats."""

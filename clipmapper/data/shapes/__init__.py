"""The embedded data set: a seeded generator of scenes, questions and captions, written in the official formats."""

"""The model randomisation test: ``scripts/sanity_check.py`` (docs/method.md, Randomisation)."""

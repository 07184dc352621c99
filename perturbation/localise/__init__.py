"""Explanations against known evidence: ``scripts/evaluate_explanations.py``."""

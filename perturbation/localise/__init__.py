"""Explanations compared with known evidence: ``scripts/evaluate_explanations.py``."""

"""Explaining trained models: the parts shared by all tasks."""

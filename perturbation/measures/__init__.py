"""Measures of the faithfulness of explanations, one file each."""

"""Datasets: reading questions, captions and images, and generating the ``shapes`` dataset."""

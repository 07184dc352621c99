"""Perturbation tests of any model that reads an image, a text or both, without its inner tokens being known.

A patch is removed from the image's pixels and a word from the text, and the model reads the new pair.
"""

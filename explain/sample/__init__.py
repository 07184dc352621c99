"""Explanation of one answer: a model, its processor, an image and a text give a map, scored words and figures.

Each kind of model has a file, which returns a :class:`~explain.sample.traced.TracedSample`. A model of another package
joins in by a method ``trace_sample`` (:class:`~explain.sample.traced.Traceable`).
"""

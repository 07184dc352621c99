"""Explanation of one answer: a model, its processor, an image and a text give a map, scored words and figures.

Each kind of model has a file, which returns a :class:`~explain.sample.traced.TracedSample`. Another package registers
its models with :func:`~explain.sample.entry.trace_sample`.
"""

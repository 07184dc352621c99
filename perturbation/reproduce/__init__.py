"""Reproduction of an experiment: a list of commands, run in order and resumed after a stop.

- ``stages.py``: the stages of an experiment and their state on disk
- ``run.py``: the loop that runs them, one process each
"""

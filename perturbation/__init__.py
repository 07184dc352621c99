"""Tests of explanations.

- :mod:`perturbation.perturb`: the perturbation tests, which remove tokens and run the model again
- :mod:`perturbation.measures`: what these tests measure, one file per measure
- :mod:`perturbation.removal`: which tokens are removed, and how a model runs without them
- :mod:`perturbation.report`: rows, tables and figures of the results
- :mod:`perturbation.localise`: explanations compared with known evidence
- :mod:`perturbation.randomise`: the model randomisation test
- :mod:`perturbation.benchmark`: speed and memory of the perturbation tests
- :mod:`perturbation.commands`: entry points of the scripts
"""

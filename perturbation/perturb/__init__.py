"""The perturbation tests: ``scripts/perturb.py`` and ``scripts/pool_seeds.py``."""

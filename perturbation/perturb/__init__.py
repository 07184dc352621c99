"""The perturbation tests: ``scripts/perturb.py`` and ``scripts/pool_seeds.py`` (docs/method.md, Perturbation tests).

- ``run.py``: the function ``perturb``, which runs the tests from start to end; start reading here
- ``vqa.py``, ``caption.py``: the samples of a task, and their explanations
- ``candidates.py``: the explainers under test
- ``measures.py``: the measures that a config names (they are defined in :mod:`perturbation.measures`)
- ``records.py``: one batch: all measures ask for subsets, the model runs once on all of them, every measure records
- ``lightning.py``: the loop over batches, on one or more devices
- ``parts.py``: the records of each batch on disk, which make a run resumable
- ``identity.py``: the check that a resumed run has the same config, checkpoint and samples
- ``results.py``: the report of one run, and the pooled report of several
- ``samples.py``: which samples of a split are tested
"""

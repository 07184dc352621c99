"""Measures of the faithfulness of explanations, one file each (docs/method.md, Measures).

- ``areas.py``: curves over the removal steps and the areas under them (Huang et al. 2023); part of every run
- ``eraser.py``: comprehensiveness and sufficiency (DeYoung et al. 2020, ERASER)
- ``faithfulness.py``: violations (Liu et al. 2022), and correlations of scores with the effects of single tokens
- ``saco.py``: SaCo, the effects of groups of tokens (Wu et al. 2024)
- ``ceiling.py``: the smallest and the largest area that any order of removal could reach

To add a measure:

1. Copy the file of the most similar one and write a subclass of :class:`~perturbation.measures.base.Measure`. It has
   three methods: ``ask`` (which token subsets the model reads), ``record`` (what is stored for each sample) and
   ``report`` (what is written to ``perturbation.json``).
2. Add ``configs/measure/NAME.yaml`` with the class as ``_target_`` and its options.
3. Run ``python scripts/perturb.py measure.names=[areas,NAME]``.

No other code changes; ``python docs/write_reference.py`` lists the measure's keys in docs/reference. A measure outside
this project works the same way: its class can be in any module that Python can import, and its config is
``FOLDER/measure/NAME.yaml`` with the option ``--config-dir FOLDER``.
"""

"""Removal of tokens: which tokens are removed, and how a model runs without them.

- ``reader.py``: token subsets, a model's outputs for them, and the protocol ``Reader`` between measures and models
- ``order.py``, ``steps.py``: the order of removal, and how many tokens each step removes
- ``greedy.py``: a search for the best order
- ``engine.py``, ``caption_engine.py``: the readers of the VQA and the captioning model
- ``filling.py``: what is seen in the place of removed cells of an image
- ``pixels.py``: the same for the patches of preprocessed images
- ``batch_size.py``: the fastest batch size on this machine
"""

"""Frozen features of images and texts: one growing store for each encoder, and the content hashes that identify items.

The folder ``paths.cache`` has a folder ``stores`` with one folder for each encoder, kind (images, texts) and precision,
and a folder ``hashes`` with the content hashes of image files. A store is a set of shards, files that are written once
and never changed; several processes can add to a store at the same time.
"""

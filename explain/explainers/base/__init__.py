"""Code that explainers share: the base class, and one helper module for each family of explainers."""

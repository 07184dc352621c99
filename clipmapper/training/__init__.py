"""Training with Lightning: trainer, module, batches, optimizers, checkpoint files."""

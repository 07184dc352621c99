"""What happens during a training besides its steps: log, progress, checkpoints, and its end."""

"""Read by every Python that the stand-in for srun starts: its machine has the name of a node of a cluster."""

import os
import platform

platform.node = lambda: f"node-{os.environ['SLURM_NODEID']}"

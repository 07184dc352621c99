"""Read by every Python that the stand-in for srun starts: its machine has the name of a node of a cluster.

A job that is started again is on other nodes.
"""

import os
import platform

platform.node = lambda: f"node-{os.environ.get('SLURM_RESTART_COUNT', '0')}{os.environ['SLURM_NODEID']}"

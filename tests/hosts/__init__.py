"""Several hosts on one machine: a lab of emulated hosts and Slurm nodes, faults of theirs, and a judge of what came of it."""

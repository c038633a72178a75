"""The kind ``verdict``: what a job's trials say together, worked out from their reports alone."""

"""Figures of this project beside those of ``harbor run``, measured on one machine in one run: ``python -m benchmarks``."""

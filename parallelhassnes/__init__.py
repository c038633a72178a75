"""A filesystem-first batch harness for evaluating AI agents with Harbor."""

__version__ = "2.0.0.dev0"

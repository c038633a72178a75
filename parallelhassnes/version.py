"""The version of this package, as ``pyproject.toml`` has it."""

__version__ = "2.0.0.dev0"

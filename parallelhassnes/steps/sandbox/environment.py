"""The sandbox environment under its former path, which plans of earlier batches and Harbor job configs hold."""

from parallelhassnes.sandbox.environment import SandboxEnvironment

__all__ = ["SandboxEnvironment"]

"""Any gymnax environment: its parameters, and what it draws at a reset, are the task."""

from jaxmeta_envs.from_gymnax.family import from_gymnax, gymnax_tasks

__all__ = ["from_gymnax", "gymnax_tasks"]

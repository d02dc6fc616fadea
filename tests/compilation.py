"""Compiling in a third of the time, for programs that run once."""

import contextlib
import functools

import jax
from jax._src import compiler

SIMPLE = {"xla_cpu_use_fusion_emitters": False, "xla_cpu_parallel_codegen_split_count": 1}
"""What XLA for CPUs generates code by: its older way, whole. Without optimisations that is much the quicker."""


LEVELS = ("xla_backend_optimization_level", "xla_llvm_disable_expensive_passes")
"""What `jaxmeta.core.compilation` asks for, which would optimise more than is done here."""


@contextlib.contextmanager
def quickly():
    """Compiles without most optimisations, and by `SIMPLE` where XLA knows of it.

    JAX has no public way to give options to every program, so this goes through the function that collects them.
    """
    simple, whole = _known(), compiler.get_compile_options

    def with_simple(*args, env_options_overrides=None, **kwargs):
        others = {name: value for name, value in (env_options_overrides or {}).items() if name not in LEVELS}
        return whole(*args, env_options_overrides=simple | others, **kwargs)

    jax.config.update("jax_disable_most_optimizations", True)
    compiler.get_compile_options = with_simple
    try:
        yield
    finally:
        compiler.get_compile_options = whole
        jax.config.update("jax_disable_most_optimizations", False)


@functools.cache
def _known():
    """`SIMPLE`, or nothing where this version of XLA refuses it."""
    try:
        jax.jit(lambda x: x + 1).lower(0.0).compile(compiler_options=SIMPLE)
    except jax.errors.JaxRuntimeError:
        return {}
    return SIMPLE

"""Which of XLA's options programs are compiled with."""

import jax

_ON_CPU = {"xla_backend_optimization_level": 1, "xla_llvm_disable_expensive_passes": True}


def compiler_options() -> dict[str, int | bool] | None:
    """Options for `jax.jit`, None for XLA's own.

    On a CPU the code that LLVM makes of a meta-step takes most of the time to compile, and little of the time to run,
    since matrix products are library calls: at a lower level a program compiles in a third to three quarters of the
    time, and takes 0.88 to 1.04 of the time to run (docs/performance.md).
    """
    return dict(_ON_CPU) if jax.default_backend() == "cpu" else None

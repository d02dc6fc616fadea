"""Trains recipes on 1, 2 and 8 simulated devices, in a process of its own, and says how results differ and what moved.

python tests/on_devices.py RECIPE ...
"""

import contextlib
import dataclasses
import inspect
import json
import os
import sys

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from jaxmeta import composition, jobs, training
from jaxmeta.costs import exchanges
from jaxmeta.methods import generation
from tests.conftest import TINY

COUNTS = (1, 2, 8)
META_STEPS = 3
OPTIONS = {
    "meta_sgd": {"tasks_per_group": 1},
    "rl2": {"memory_width": 8, "epochs": 2, "minibatches": 2},
    "mann": {"memory_width": 8, "epochs": 2, "minibatches": 2, "slots": 4, "word": 4, "heads": 1},
    "snail": {"memory_width": 8, "epochs": 2, "minibatches": 2, "heads": 2, "attention_layers": 1},
    "learned_rule": {"population": 2, "stretch": 1},
    "hyper_policy": {"population": 2},
    "mapping": {"sources": 16, "bank_batch": 4, "map_steps": 1, "source_steps": 2, "envs": 3},
}
"""By recipe, what makes it small, or tests more of it."""


class Doubled:
    """`jax.numpy`, in which what asks for float32 gets float64."""

    def __getattr__(self, name):
        return getattr(jnp, "float64" if name == "float32" else name)


def make_everything_in_float64():
    """Flax's own layers, and our hyper-parameters, are float32 whatever JAX is set to."""
    composition.jnp = generation.jnp = Doubled()
    for layer in vars(nn).values():
        if isinstance(layer, type) and issubclass(layer, nn.Module) and dataclasses.is_dataclass(layer):
            made = inspect.unwrap(layer.__init__)
            made.__defaults__ = tuple(map(_double, made.__defaults__ or ()))
            made.__kwdefaults__ = {name: _double(value) for name, value in (made.__kwdefaults__ or {}).items()}
            for field in dataclasses.fields(layer):
                field.default = _double(field.default)  # what a class made of this one takes over


def _double(default):
    return jnp.float64 if default is jnp.float32 else default


def run(recipe: str, count: int):
    """What a short run ends with, as float64 arrays on the host, and the text of its program."""
    settings = {**TINY, "tasks_per_batch": 16, "meta_steps": META_STEPS, **OPTIONS.get(recipe, {})}
    job = jobs.prepare(recipe, "grid_navi:size=3,horizon=4", settings=settings, log_every=META_STEPS, devices=count)
    with jax.set_mesh(job.mesh) if job.mesh else contextlib.nullcontext():
        start = training._starting_state(job)
        arguments = (start, training._step_key(job), np.int32(META_STEPS))
        program = training._chunk(job, start).lower(*arguments).compile()
        state, _ = program(*arguments)
    ended = jax.device_get((state.meta, state.optimizer))
    parameters = sum(leaf.size for leaf in jax.tree.leaves(state.meta))
    return [np.asarray(leaf, np.float64) for leaf in jax.tree.leaves(ended)], parameters, program.as_text()


def moved(text: str) -> list[dict]:
    """What a program exchanges between devices: of each exchange its kind, and how many numbers."""
    return [
        {"kind": one.kind, "numbers": one.numbers, "flags_only": set(one.dtypes) == {"pred"}} for one in exchanges(text)
    ]


def main() -> None:
    """Prints a line of JSON for each recipe."""
    os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=8"  # read when a device is first asked for
    jax.config.update("jax_enable_x64", True)
    make_everything_in_float64()
    jax.config.update("jax_disable_most_optimizations", True)
    for recipe in sys.argv[1:]:
        ends, parameters, text = {}, 0, ""
        for count in COUNTS:
            ends[count], parameters, text = run(recipe, count)
        apart = max(
            float(np.max(np.abs(one - other) / (1 + np.abs(one)), initial=0.0))
            for count in COUNTS[1:]
            for one, other in zip(ends[1], ends[count], strict=True)
        )
        told = {"recipe": recipe, "apart": apart, "parameters": parameters, "moved": moved(text)}
        print(json.dumps(told), flush=True)


if __name__ == "__main__":
    main()

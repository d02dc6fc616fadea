"""Trains cases on simulated devices, so many as told, in a process of its own; says how results differ and what moved.

python tests/on_devices.py COUNT,COUNT,... CASE ...
"""

import json
import os
import sys

import jax
import numpy as np
import pytest

from jaxmeta.core import sharding as devices
from jaxmeta.core.costs import exchanges
from jaxmeta.training import jobs
from jaxmeta.training import loop as training
from tests import compilation
from tests.conftest import TINY, tiny
from tests.double import make_everything_in_float64

META_STEPS = 3
SMALLER = {"rounds": 1, "replay_rounds": 1, "inner_steps": 1}
OPTIONS = {
    "maml": {"rounds": 2, "replay_rounds": 2, "inner_steps": 2},
    "meta_sgd": {"tasks_per_group": 1},
    "rl2": {"memory_width": 8, "epochs": 2, "minibatches": 2},
    "mann": {"memory_width": 8, "epochs": 2, "minibatches": 2, "slots": 4, "word": 4, "heads": 1},
    "snail": {"memory_width": 8, "epochs": 2, "minibatches": 2, "heads": 2, "attention_layers": 1},
    "learned_rule": {"population": 2, "stretch": 1},
    "hyper_policy": {"population": 2},
    "mapping": {"sources": 16, "bank_batch": 4, "map_steps": 1, "source_steps": 2, "envs": 3},
}
"""By recipe, what makes it small, or tests more of it."""
VARIANTS = {
    "proximal": ("maml", {"agent": "actor_critic", "outer_update": "proximal", "epochs": 2, "minibatches": 2}, {}),
    "population": ("reptile", {}, {"seeds": (0, 3)}),
}
"""Cases that are no recipe's own: of which recipe, under which settings, for whom."""


def run(case: str, count: int):
    """What a short run ends with, as float64 arrays on the host, and the text of its program."""
    recipe, changed, whose = VARIANTS.get(case, (case, OPTIONS.get(case, {}), {}))
    small = {**TINY, **SMALLER, "tasks_per_batch": 16}
    settings = tiny(recipe, small, meta_steps=META_STEPS, **changed)
    tasks = "grid_navi:size=3,horizon=4"
    job = jobs.prepare(recipe, tasks, settings=settings, log_every=META_STEPS, devices=count, **whose)
    with devices.use(job.mesh):
        arguments = training.starting_state(job), training.step_key(job)
        program = training.lowered(job, *arguments).compile()
        state, _ = program(*arguments, np.int32(META_STEPS))
    ended = jax.device_get((state.meta, state.optimizer))
    parameters = sum(leaf.size for leaf in jax.tree.leaves(state.meta))
    return [np.asarray(leaf, np.float64) for leaf in jax.tree.leaves(ended)], parameters, program.as_text()


def moved(text: str) -> list[dict]:
    """What a program exchanges between devices: of each exchange its kind, and how many numbers."""
    return [
        {"kind": one.kind, "numbers": one.numbers, "flags_only": set(one.dtypes) == {"pred"}} for one in exchanges(text)
    ]


def main() -> None:
    """Prints a line of JSON for each case."""
    os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=8"  # read when a device is first asked for
    jax.config.update("jax_enable_x64", True)
    make_everything_in_float64(pytest.MonkeyPatch())
    counts = [int(count) for count in sys.argv[1].split(",")]
    for case in sys.argv[2:]:
        ends, parameters, text = {}, 0, ""
        with compilation.quickly():
            for count in counts:
                ends[count], parameters, text = run(case, count)
        apart = max(
            float(np.max(np.abs(one - other) / (1 + np.abs(one)), initial=0.0))
            for count in counts[1:]
            for one, other in zip(ends[counts[0]], ends[count], strict=True)
        )
        told = {"case": case, "apart": apart, "parameters": parameters, "moved": moved(text)}
        print(json.dumps(told), flush=True)


if __name__ == "__main__":
    main()

"""Trains cases on simulated devices, so many as told, in a process of its own; says how results differ and what moved.

python tests/on_devices.py COUNT,COUNT,... CASE ...
"""

import json
import os
import sys

import jax
import numpy as np

from jaxmeta.core import sharding as devices
from jaxmeta.core.costs import exchanges
from jaxmeta.training import jobs
from jaxmeta.training import loop as training
from tests import compilation
from tests.conftest import TINY, tiny

META_STEPS = 3
SMALLER = {"num_adaptations": 1, "agent.replay_capacity": 1, "inner.num_steps": 1}
OPTIONS = {
    "maml": {"num_adaptations": 2, "agent.replay_capacity": 2, "inner.num_steps": 2},
    "meta_sgd": {"tasks_per_group": 1},
    "rl2": {"memory.width": 8, "epochs": 2, "minibatches": 2},
    "mann": {"memory.width": 8, "epochs": 2, "minibatches": 2, "slots": 4, "word": 4, "heads": 1},
    "snail": {"memory.width": 8, "epochs": 2, "minibatches": 2, "heads": 2, "layers": 1},
    "learned_optimizer": {"num_perturbations": 2, "truncation_length": 1},
    "hyper_policy": {"num_perturbations": 2},
    "mapping": {"num_sources": 16, "bank_batch": 4, "num_updates": 1, "sources.num_steps": 2, "num_envs": 3},
}
"""By algorithm, what makes it small, or tests more of it."""
VARIANTS = {
    "proximal": ("maml", {"agent": "actor_critic", "trust_region.epochs": 2, "trust_region.minibatches": 2}, {}),
    "population": ("reptile", {}, {"seeds": (0, 3)}),
}
"""Cases that are no algorithm's own: of which algorithm, under which settings, for whom."""


def run(case: str, count: int):
    """What a short run ends with, as float64 arrays on the host, and the text of its program."""
    algorithm, changed, whose = VARIANTS.get(case, (case, OPTIONS.get(case, {}), {}))
    settings = tiny(algorithm, {"meta_steps": META_STEPS, **changed}, {**TINY, **SMALLER, "tasks_per_batch": 16})
    tasks = "grid_navi:size=3,horizon=4"
    job = jobs.prepare(algorithm, tasks, settings, log_every=META_STEPS, devices=count, **whose)
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
        reported = {"case": case, "apart": apart, "parameters": parameters, "moved": moved(text)}
        print(json.dumps(reported), flush=True)


if __name__ == "__main__":
    main()

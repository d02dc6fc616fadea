"""How fast the engine runs, from one run: environment, rollout, meta-step, its hand-fused form, memory, large batches.

    python benchmarks/throughput.py --out benchmarks/results/throughput.json

Ratios are of medians over alternating pairs, with a 95 % bootstrap interval over the pairs; rates are of the fastest of
several calls. Nothing else should run on the machine.
"""

import argparse
import json
import multiprocessing
import os
import platform
import resource
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import fused
import fused_policy
import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import optax

from jaxmeta.algorithms.registry import make_learner
from jaxmeta.core import tasks
from jaxmeta.core.rollout import Runner
from jaxmeta.core.settings import with_values
from jaxmeta.core.types import Task, sample_tasks

ENVS_PER_TASK = 16
STEPS = 200
RESAMPLES = 2000


def seconds_of(call: Callable[[], Any]) -> float:
    start = time.perf_counter()
    jax.block_until_ready(call())
    return time.perf_counter() - start


def fastest(call: Callable[[], Any], times: int = 5) -> float:
    jax.block_until_ready(call())
    return min(seconds_of(call) for _ in range(times))


def ratio_of(one: Callable[[], Any], other: Callable[[], Any], pairs: int) -> dict[str, Any]:
    """Medians of both, their ratio one / other, and its interval, over alternating pairs."""
    for call in (one, other):
        jax.block_until_ready(call())
    taken = np.empty((pairs, 2))
    for pair in range(pairs):
        for which in (0, 1) if pair % 2 else (1, 0):
            taken[pair, which] = seconds_of((one, other)[which])
    return {"seconds": np.median(taken, axis=0).tolist(), **paired_ratio(taken)}


def paired_ratio(taken: np.ndarray) -> dict[str, Any]:
    """The ratio of the median seconds, of [pairs, 2] the first to the second, and its interval over the pairs."""
    medians, redrawn = np.median(taken, axis=0), np.median(resampled(taken), axis=1)
    return {
        "pairs": len(taken),
        "ratio": float(medians[0] / medians[1]),
        "ratio_ci95": np.percentile(redrawn[:, 0] / redrawn[:, 1], [2.5, 97.5]).tolist(),
    }


def resampled(values: np.ndarray) -> np.ndarray:
    """Rows drawn with replacement, [RESAMPLES, rows, ...]."""
    return values[np.random.default_rng(0).integers(len(values), size=(RESAMPLES, len(values)))]


def rollouts(name: str, num_tasks: int, pairs: int) -> dict[str, Any]:
    """Environment steps per second: random actions, a policy network by hand, and the engine's rollout with it."""
    distribution = tasks.make_tasks(name)
    settings = {"adaptation.num_envs": ENVS_PER_TASK, "adaptation.rollout_length": STEPS, "agent.epsilon": 0.0}
    learner = make_learner("maml", distribution, settings)
    env, adapter = distribution.env, learner.adapter
    meta = jax.jit(learner.init)(jax.random.key(0)).meta
    env_params = sample_tasks(jax.random.key(1), distribution, "train", num_tasks)
    network = meta.params["network"]["params"]
    temperature = float(meta.hyperparams.temperature)

    def q_values(observation):
        hidden = jnp.ravel(observation)
        for layer in sorted(layer for layer in network if layer.startswith("torso")):
            hidden = jax.nn.relu(hidden @ network[layer]["kernel"] + network[layer]["bias"])
        return hidden @ network["head"]["kernel"] + network["head"]["bias"]

    def by_hand(choose):
        def one(key, params):
            observation, state = env.reset(key, params)

            def step(carry, key):
                observation, state = carry
                act_key, step_key = jax.random.split(key)
                observation, state, reward, *_ = env.step(step_key, state, choose(act_key, observation, params), params)
                return (observation, state), reward

            return jnp.sum(jax.lax.scan(step, (observation, state), jax.random.split(key, STEPS))[1])

        def every(key):
            keys = jax.random.split(key, (num_tasks, ENVS_PER_TASK))
            return jax.vmap(jax.vmap(one, (0, None)))(keys, env_params)

        return jax.jit(every)

    def softmax(key, observation, params):
        return jax.random.categorical(key, q_values(observation) / temperature).astype(jnp.int32)

    def engine(key):
        def one(key, params):
            task = Task(params, None)
            learner_state = Runner(env, adapter).reset(key, meta, task, ENVS_PER_TASK)
            played = Runner(env, adapter).evaluate_policy(key, meta, task, learner_state, ENVS_PER_TASK, STEPS)
            return jnp.sum(played.reward, axis=0)

        return jax.vmap(one)(jax.random.split(key, num_tasks), env_params)

    raw = by_hand(lambda key, observation, params: env.action_space(params).sample(key))
    policy, engine = by_hand(softmax), jax.jit(engine)
    env_steps = num_tasks * ENVS_PER_TASK * STEPS
    key = jax.random.key(2)
    return {
        "tasks": name,
        "environments": num_tasks * ENVS_PER_TASK,
        "raw_env_steps_per_second": env_steps / fastest(lambda: raw(key)),
        "policy_env_steps_per_second": env_steps / fastest(lambda: policy(key)),
        "engine_env_steps_per_second": env_steps / fastest(lambda: engine(key)),
        "speed_of_engine_to_policy_by_hand": ratio_of(lambda: policy(key), lambda: engine(key), pairs),
    }


def meta_step(name: str, algorithm: str, settings: Mapping[str, Any]) -> dict[str, Any]:
    """A meta-step in a process of its own, whose memory is the meta-step's."""
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=spawn) as pool:
        return pool.submit(measured_meta_step, name, algorithm, settings).result()


def measured_meta_step(name: str, algorithm: str, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Environment steps per second, seconds to trace and to compile, memory of the program and of the process."""
    distribution = tasks.make_tasks(name)
    learner = make_learner(algorithm, distribution, settings)
    state = jax.jit(learner.init)(jax.random.key(0))
    env_params = sample_tasks(jax.random.key(1), distribution, "train", learner.tasks_per_batch)
    start = time.perf_counter()
    lowered = jax.jit(learner.update).lower(jax.random.key(2), state, Task(env_params, None))
    traced = time.perf_counter()
    compiled = lowered.compile()
    done = time.perf_counter()
    seconds = fastest(lambda: compiled(jax.random.key(2), state, env_params))
    memory = compiled.memory_analysis()
    assert memory is not None
    return {
        "algorithm": algorithm,
        "tasks": name,
        **settings,
        "seconds": seconds,
        "seconds_per_task": seconds / learner.tasks_per_batch,
        "env_steps_per_second": learner.tasks_per_batch * learner.env_steps_per_task / seconds,
        "trace_seconds": traced - start,
        "compile_seconds": done - traced,
        "temporary_megabytes": memory.temp_size_in_bytes / 1e6,
        "peak_resident_megabytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3,
    }


def beside_fused(
    name: str,
    make_gradient: Callable[..., fused.GradientOf],
    pairs: int,
    group_by_hand: int,
    settings: Mapping[str, Any],
) -> dict[str, Any]:
    """The engine's meta-step of MAML against the same work written by hand; both must agree.

    How many tasks run together is each form's own, where it is fastest.
    """
    distribution = tasks.make_tasks(name)
    config = fused.config_of(distribution, settings)
    learner = make_learner("maml", distribution, config)
    state = jax.jit(learner.init)(jax.random.key(0))
    env_params = sample_tasks(jax.random.key(1), distribution, "train", learner.tasks_per_batch)
    config = with_values(config, {"outer.tasks_per_group": group_by_hand})
    meta_step, optimizer = fused.make_fused(make_gradient(distribution, config), config)
    params = state.meta.params
    optimizer_state = optimizer.init(params)
    key = jax.random.key(2)
    ours = jax.jit(learner.update).lower(key, state, Task(env_params, None)).compile()
    by_hand = jax.jit(meta_step).lower(key, params, optimizer_state, env_params).compile()
    # Adam's first step is nearly the gradient's sign, which says nothing: its mean is compared, the clipped gradient.
    ours_mean = optax.tree.get(ours(key, state, Task(env_params, None))[0].optimizer, "mu").params
    their_mean = optax.tree.get(by_hand(key, params, optimizer_state, env_params)[1], "mu")
    difference = float(optax.tree.norm(jax.tree.map(jnp.subtract, ours_mean, their_mean)) / optax.tree.norm(ours_mean))
    if not difference < 3e-5:
        raise SystemExit(f"Both forms must give the same meta-gradient, got a relative difference of {difference:.1e}.")
    timed = ratio_of(
        lambda: ours(key, state, Task(env_params, None)),
        lambda: by_hand(key, params, optimizer_state, env_params),
        pairs,
    )
    return {"tasks": name, **settings, "group_by_hand": group_by_hand, "relative_difference": difference, **timed}


def large_batches(name: str, sizes: list[int], groups: list[int]) -> list[dict[str, Any]]:
    """Seconds a task and temporary memory, for batches of many sizes in groups of several."""
    return [
        meta_step(name, "maml", {"outer.tasks_per_batch": size, "outer.tasks_per_group": group})
        for size in sizes
        for group in groups
        if group <= size
    ]


def machine() -> dict[str, Any]:
    model = platform.processor()
    if Path("/proc/cpuinfo").is_file():
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        model = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), model)
    return {
        "device": jax.devices()[0].device_kind,
        "processor": model,
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "jax": jax.__version__,
    }


def plot(batches: list[dict[str, Any]], path: Path) -> None:
    figure, axes = plt.subplots(figsize=(5, 3.2), layout="constrained")
    for group in sorted({row["outer.tasks_per_group"] for row in batches}):
        rows = [row for row in batches if row["outer.tasks_per_group"] == group]
        sizes, milliseconds = zip(
            *[(row["outer.tasks_per_batch"], 1e3 * row["seconds_per_task"]) for row in rows], strict=True
        )
        axes.plot(sizes, milliseconds, marker="o", label=f"groups of {group}")
    axes.set(xscale="log", xlabel="tasks in a meta-batch", ylabel="milliseconds a task", ylim=(0, None))
    axes.legend(frameon=False)
    figure.savefig(path, dpi=150)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=20)
    parser.add_argument("--sizes", type=int, nargs="+", default=[16, 64, 256, 1024])
    parser.add_argument("--groups", type=int, nargs="+", default=[4, 8, 16])
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()

    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # several processes share an accelerator
    result: dict[str, Any] = {"machine": machine()}
    result["rollouts"] = [rollouts(name, 64, options.pairs) for name in ("grid_navi", "cartpole", "maze")]
    result["meta_steps"] = [
        meta_step(name, algorithm, {})
        for name in ("grid_navi", "cartpole", "maze")
        for algorithm in ("maml", "fomaml", "anil", "meta_sgd", "reptile")
    ]
    result["beside_fused"] = beside_fused("grid_navi", fused.make_gradient, options.pairs, 0, {})
    result["beside_fused_policy"] = beside_fused(
        "point_navigation", fused_policy.make_gradient, options.pairs, 1, fused_policy.SETTINGS
    )
    result["large_batches"] = large_batches("grid_navi", options.sizes, options.groups)
    options.out.write_text(json.dumps(result, indent=1) + "\n")
    plot(result["large_batches"], options.out.with_suffix(".png"))
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()

"""How a meta-step grows with its batch on one device, and what several devices exchange in it.

    python benchmarks/scaling.py --out benchmarks/results/scaling.json

Bytes are read from the program that is compiled for so many simulated devices. How long simulated devices take is no
evidence of anything, and is not measured.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

TASKS = [16, 64, 256, 1024, 4096]
DEVICES = [1, 2, 4, 8]
SPREAD = 64
"""Tasks that are spread over devices."""
CASES: dict[str, tuple[str, str, dict[str, Any]]] = {
    "maml": ("maml", "grid_navi", {"objective.lifetimes_per_task": 1}),
    "rl2": ("rl2", "bandit", {}),
    "learned_optimizer": (
        "learned_optimizer",
        "grid_navi",
        {"adaptation.num_adaptations": 20, "agent.replay_capacity": 20},
    ),
}
GROWN = {
    "adaptation.num_envs": 4,
    "adaptation.num_adaptations": 1,
    "agent.hidden": (32,),
    "objective.lifetimes_per_task": 1,
    "objective.num_query_envs": 4,
    "objective.scored": "last",
}
"""Of the meta-step that is timed: small tasks, so that thousands of them fit."""
CALLS = 3


def timed() -> list[dict[str, Any]]:
    """A meta-step of MAML by the number of its tasks, the fastest of some calls."""
    import jax
    import numpy as np

    from jaxmeta.training import jobs
    from jaxmeta.training import loop as training

    rows = []
    for tasks in TASKS:
        settings = GROWN | {"outer.tasks_per_batch": tasks, "meta_steps": 1}
        job = jobs.prepare("maml", "grid_navi", settings, devices=1)
        state, key = training.starting_state(job), training.step_key(job)
        program = training.lowered(job, state, key).compile()
        seconds = []
        for _ in range(1 + CALLS):
            start = time.perf_counter()
            state, _ = jax.block_until_ready(program(state, key, np.int32(1)))
            seconds.append(time.perf_counter() - start)
        temporary = program.memory_analysis().temp_size_in_bytes
        env_steps = tasks * job.learner.env_steps_per_task
        rows.append({"tasks": tasks, "seconds": min(seconds[1:]), "env_steps": env_steps, "temporary": temporary})
        print(rows[-1], flush=True)
    return rows


def exchanged(name: str, count: int) -> dict[str, Any]:
    """What so many devices exchange in a meta-step; run where as many are simulated."""
    import jax

    from jaxmeta.algorithms.rl2 import RL2Config
    from jaxmeta.core import costs
    from jaxmeta.core import sharding as devices
    from jaxmeta.training import jobs
    from jaxmeta.training import loop as training

    algorithm, tasks, settings = CASES[name]
    settings = settings | {"outer.tasks_per_batch": SPREAD, "meta_steps": 1}
    job = jobs.prepare(algorithm, tasks, settings, devices=count)
    config = job.learner.config
    updates = config.outer.trust_region.steps if isinstance(config, RL2Config) else 1
    with devices.use(job.mesh):
        state = training.starting_state(job)
        text = training.lowered(job, state, training.step_key(job)).compile().as_text()
    found = costs.exchanges(text)
    sums = [one for one in found if one.kind == "all-reduce"]
    inside = [one for one in sums if one.where.count("while/body") > 1]
    payload = sum(one.bytes for one in sums) + (updates - 1) * sum(one.bytes for one in inside)
    return {
        "case": name,
        "devices": count,
        "parameters": sum(leaf.size for leaf in jax.tree.leaves(state.meta)),
        "optimizer_steps": updates,
        "sums": len(sums) + (updates - 1) * len(inside),
        "bytes_summed": payload,
        "bytes_sent_by_a_device": round(2 * (count - 1) / count * payload),
        "other": [one._asdict() for one in found if one.kind != "all-reduce" and set(one.dtypes) != {"pred"}],
    }


def table(content: dict[str, Any]) -> str:
    """Both, as Markdown."""
    lines = [
        "# Scaling\n",
        f"Made by `{content['command']}`\n",
        "A meta-step of MAML over DQN on one device, by its batch:\n",
        "| tasks | a meta-step | env steps/s | temporary memory |",
        "|---|---|---|---|",
    ]
    for row in content["timed"]:
        speed = row["env_steps"] / row["seconds"]
        lines.append(
            f"| {row['tasks']:,} | {1e3 * row['seconds']:,.0f} ms | {speed:,.0f} | {row['temporary'] / 1e6:,.0f} MB |"
        )
    lines += [
        f"\nWhat devices exchange in a meta-step of {SPREAD} tasks, read from the compiled program:\n",
        "| algorithm | parameters | devices | sums | bytes summed "
        "| bytes that a device sends in a ring | anything else |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in content["exchanged"]:
        other = ", ".join(one["kind"] for one in row["other"]) or "nothing"
        lines.append(
            f"| {row['case']} | {row['parameters']:,} | {row['devices']} | {row['sums']} | {row['bytes_summed']:,} "
            f"| {row['bytes_sent_by_a_device']:,} | {other} |"
        )
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--exchanged", nargs=2, metavar=("CASE", "DEVICES"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.exchanged:
        name, count = options.exchanged
        print(json.dumps(exchanged(name, int(count))))
        return

    from throughput import machine

    from jaxmeta.training.run_directory import write_json, write_text

    rows = []
    for name in CASES:
        for count in DEVICES:
            simulated = {**os.environ, "XLA_FLAGS": f"--xla_force_host_platform_device_count={count}"}
            argv = [sys.executable, __file__, "--out", str(options.out), "--exchanged", name, str(count)]
            answer = subprocess.run(argv, env=simulated, capture_output=True, text=True, check=True).stdout
            rows.append(json.loads(answer.splitlines()[-1]))
            print(rows[-1], flush=True)
    command = f"python benchmarks/scaling.py --out {options.out}"
    content = {"command": command, "machine": machine(), "timed": timed(), "exchanged": rows}
    write_json(options.out, content)
    write_text(options.out.with_suffix(".md"), table(content))
    print(table(content))


if __name__ == "__main__":
    main()

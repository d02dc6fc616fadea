"""Holds the meta-step of a rebuilt checkout to the time of an older one, in alternating pairs.

    python benchmarks/same_speed.py OLD_PYTHON OLD_CHECKOUT     # of this checkout's meta-step to that of the other

Each checkout runs in a process of its own, which compiles once; then they take turns, one at a time. Reported is the
median of the ratios of neighbouring turns, with an interval from resampling pairs.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

CASES = {"maml on grid_navi": ("maml", "grid_navi", 20), "rl2 on maze": ("rl2", "maze", 2)}
"""Recipe, tasks and meta-steps of a turn, at standard settings."""
PAIRS = 20


def serve() -> None:
    """Answers each line of input, which names a case, by the seconds that a turn took."""
    import jax
    from same_numbers_engine import learner_of, meta_step, sample_tasks

    import jaxmeta

    programs = {}
    for line in sys.stdin:
        name = line.strip()
        recipe, spec, steps = CASES[name]
        if name not in programs:
            tasks = jaxmeta.make_tasks(spec)
            learner = learner_of(recipe, tasks, {}, {})
            env_params = sample_tasks(jax.random.key(1), tasks, "train", learner.tasks_per_batch)
            state = jax.jit(learner.init)(jax.random.key(0))
            programs[name] = jax.jit(meta_step(learner)), state, env_params
        update, state, env_params = programs[name]
        start = time.perf_counter()
        for step in range(steps):
            state, _ = update(jax.random.key(step), state, env_params)
        jax.block_until_ready(state)
        print(json.dumps(time.perf_counter() - start), flush=True)


def main() -> int:
    """Prints ratios; the exit status says whether all medians are at most 1.02."""
    if sys.argv[1:] == ["serve"]:
        serve()
        return 0
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("old_python", help="an interpreter in whose environment the older checkout is installed")
    parser.add_argument("old_checkout", type=Path)
    options = parser.parse_args()
    here = Path(__file__).parent
    processes = []
    for python, root in ((options.old_python, options.old_checkout), (sys.executable, here.parent)):
        paths = os.pathsep.join(map(str, (root, root / "envs", here)))
        command = [python, str(here / "same_speed.py"), "serve"]
        environment = {**os.environ, "PYTHONPATH": paths}
        processes.append(
            subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        )

    def turn(process: subprocess.Popen, name: str) -> float:
        assert process.stdin is not None
        assert process.stdout is not None
        print(name, file=process.stdin, flush=True)
        return json.loads(process.stdout.readline())

    slower = 0
    for name in CASES:
        for process in processes:
            turn(process, name)  # which compiles
        pairs = np.array([[turn(process, name) for process in processes] for _ in range(PAIRS)])
        ratios = pairs[:, 1] / pairs[:, 0]
        resampled = np.median(np.random.default_rng(0).choice(ratios, (2000, PAIRS)), axis=1)
        low, high = np.percentile(resampled, [2.5, 97.5])
        median, steps = float(np.median(ratios)), CASES[name][2]
        slower += median > 1.02
        seconds = np.median(pairs, axis=0) / steps
        print(f"{name}: {median:.3f} ({low:.3f} to {high:.3f}), {seconds[0]:.4f} s before, {seconds[1]:.4f} s now")
    for process in processes:
        process.kill()
    return int(slower > 0)


if __name__ == "__main__":
    sys.exit(main())

"""The same work in what users would pick instead: DQN by rejax, MAML in PyTorch, recurrent PPO.

    python benchmarks/peers.py --out benchmarks/results/peers.json

Each contender is a process of its own (`peers/`) on the CPU, which waits while it is not its turn. They take turns in
pairs: ours, theirs, theirs, ours, and so on. A ratio is of median seconds, ours to theirs, with a 95 % bootstrap
interval over the pairs; below 1, ours is faster. The first call of each, a training or a meta-step that compiles what
must be compiled, is reported apart. The peers are installed from PyPI into environments of their own, unless an
interpreter that has them is named. Nothing else should run on the machine: PyTorch's threads wait for each other
spinning, and slow down many times over where they must share a core.

**DQN on CartPole-v1**, at the settings that rejax publishes for it: the same network, environments, buffer, batches,
schedules, and number of gradient steps on either side. Ours is one long life in one task, by the engine's own loop and
adapter. The evaluations that rejax makes while it trains are left out; what training arrives at is evaluated
afterwards, greedily and not timed. What still differs:

- rejax takes the time limit for an end after which nothing follows, ours bootstraps there;
- rejax draws a batch without replacement, at a cost that grows with the buffer, ours with;
- rejax clips each entry of a gradient to 10, ours the whole gradient to a norm of 10;
- rejax moves the target once an iteration, ours after each of its gradient steps, together as far;
- rejax runs on gymnax 0.0.9, ours on gymnax 1.x, with the same version of JAX.

**MAML over DQN on GridNavi**, one meta-step at the default settings after another, against PyTorch run eagerly, with
its default number of threads and with a single one. Given the same actions both must arrive at the same meta-gradient,
or nothing is timed: the actions and our gradient are those of `fused.py`, which `throughput.py` holds against the
engine.

**MAML over policy gradients on 2-D navigation**, in the same way, at the settings of `fused_policy.py`; what is given
is the noise of the actions.

**RL^2 on bandits and on XLand**, training updates of the algorithm `rl2` against recurrent PPO in one file, written in
the style of XLand-MiniGrid's baseline (`peers/ppo_gru.py` says what that is and is not). On either side the same
environment, network, number of environments, epochs and minibatches; one update takes one trial of fresh tasks and
learns from it as a whole. The environment stepped by random actions, as many at once, is what both could reach at most.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import fused
import fused_policy
import jax
import numpy as np
from throughput import machine, paired_ratio, resampled

from jaxmeta.algorithms.maml import MAMLConfig
from jaxmeta.algorithms.registry import configure, make_learner
from jaxmeta.algorithms.rl2 import RL2Config
from jaxmeta.core import tasks
from jaxmeta.core.settings import settings_of
from jaxmeta.core.types import TaskDistribution, sample_tasks
from jaxmeta.rl.advantages import RIDGE
from jaxmeta_envs import point_navigation

PARTS = ("maml", "policy", "rl2", "dqn")
RECURRENT = {"bandit": {}, "xland": {"adaptation.num_adaptations": 1, "outer.tasks_per_batch": 256}}
"""Tasks of `rl2`, and the settings that differ from its own there."""
WORKERS = Path(__file__).parent / "peers"
REQUIREMENTS = {
    "torch": ["torch==2.15.*", "numpy"],
    "rejax": ["rejax==0.1.3", "gymnax==0.0.9", "six", f"jax=={jax.__version__}"],
}
EPISODES = 128
HORIZON = 500
TOLERANCE = 1e-4

Ask = Callable[..., dict[str, Any]]


def dqn_settings(steps: int) -> dict[str, Any]:
    """What rejax publishes for CartPole-v1, under its names; the buffer scales with a training of another length."""
    return {
        "num_envs": 10,
        "buffer_size": steps // 2,
        "fill_buffer": steps // 20,
        "batch_size": 100,
        "max_grad_norm": 10.0,
        "learning_rate": 1e-3,
        "num_epochs": 5,
        "total_timesteps": steps,
        "polyak": 0.98,
        "eps_start": 1.0,
        "eps_end": 0.05,
        "exploration_fraction": 0.5,
        "gamma": 0.99,
        "ddqn": True,
    }


def interpreter(peer: str, given: Path | None, venvs: Path) -> Path:
    """The interpreter that has a peer, in an environment that is made where it is missing or of other versions."""
    if given is not None:
        return given
    folder, wanted = venvs / peer, "\n".join(REQUIREMENTS[peer])
    made = folder / "requirements.txt"
    python = folder / "bin" / "python"
    if not made.is_file() or made.read_text() != wanted:
        print(f"Installing {' '.join(REQUIREMENTS[peer])} into {folder}.", file=sys.stderr)
        install = [python, "-m", "pip", "install", "--quiet", *REQUIREMENTS[peer]]
        for command in ([sys.executable, "-m", "venv", "--clear", folder], install):
            if subprocess.run(command, stdout=sys.stderr).returncode != 0:
                raise SystemExit(f"{peer} must be installed in {folder}, or named by --{peer}-python; that failed.")
        made.write_text(wanted)
    return python


@contextmanager
def worker(python: Path | str, script: str) -> Iterator[Ask]:
    """Starts a worker, which ends with the block; what it gives is asked as `ask("name", argument=...)`."""
    env = {**os.environ, "JAX_PLATFORMS": "cpu", "CUDA_VISIBLE_DEVICES": ""}
    command = [str(python), str(WORKERS / script)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=env) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        requests, answers = process.stdin, process.stdout

        def ask(do: str, **arguments: Any) -> dict[str, Any]:
            requests.write(json.dumps({"do": do, **arguments}) + "\n")
            requests.flush()
            line = answers.readline()
            answer = json.loads(line) if line else {"error": f"it ended with status {process.wait()}"}
            if "error" in answer:
                raise SystemExit(f"{script} must answer {do!r}, but {answer['error']}.")
            return answer

        yield ask


def in_turns(ours: Callable[[int], dict], theirs: Callable[[int], dict], pairs: int) -> tuple[list[dict], list[dict]]:
    """Answers of both, which are asked with the number of the pair: ours, theirs, theirs, ours, and so on."""
    answers: tuple[list[dict], list[dict]] = ([], [])
    for pair in range(pairs):
        for which in (1, 0) if pair % 2 else (0, 1):
            answers[which].append((ours, theirs)[which](pair))
            print(f"pair {pair + 1} of {pairs}: {answers[which][-1]}", file=sys.stderr, flush=True)
    return answers


def summary(first: dict, answers: list[dict], versions: dict) -> dict[str, Any]:
    return {
        "seconds": float(np.median([answer["seconds"] for answer in answers])),
        "first_call_seconds": first["seconds"],
        "peak_megabytes": answers[-1]["peak_megabytes"],
        **versions,
    }


def compared(ours: list[dict], theirs: list[dict]) -> dict[str, Any]:
    """The ratio of the median seconds, ours to theirs, and its interval over the pairs."""
    taken = np.array([[one["seconds"], other["seconds"]] for one, other in zip(ours, theirs, strict=True)])
    return {"seconds_of_both": np.median(taken, axis=0).tolist(), **paired_ratio(taken)}


def dqn(rejax_python: Path, seeds: int, steps: int) -> dict[str, Any]:
    """Trainings from the same seeds by both: how fast, and what return they arrive at."""
    settings = dqn_settings(steps)
    with worker(sys.executable, "dqn_jaxmeta.py") as ours, worker(rejax_python, "dqn_rejax.py") as theirs:
        versions = [ask("prepare", settings=settings, episodes=EPISODES, horizon=HORIZON) for ask in (ours, theirs)]
        first = [ask("train", seed=seeds) for ask in (ours, theirs)]
        answers = in_turns(lambda seed: ours("train", seed=seed), lambda seed: theirs("train", seed=seed), seeds)

    rows = [{**summary(*of_one), **learned(of_one[1])} for of_one in zip(first, answers, versions, strict=True)]
    for count in ("env_steps", "updates"):
        if rows[0][count] != rows[1][count]:
            raise SystemExit(f"Both must take as many {count}, got {rows[0][count]} and {rows[1][count]}.")
    rows[1].update(compared(*answers))
    return {"tasks": "CartPole-v1", "settings": settings, "jaxmeta": rows[0], "rejax": rows[1]}


def learned(answers: list[dict]) -> dict[str, Any]:
    """Rate and returns of trainings."""
    returns = np.array([answer["return"] for answer in answers])
    return {
        "env_steps_per_second": float(np.median([answer["env_steps"] / answer["seconds"] for answer in answers])),
        "env_steps": answers[0]["env_steps"],
        "updates": answers[0]["updates"],
        "returns": returns.tolist(),
        "return": float(returns.mean()),
        "return_ci95": np.percentile(resampled(returns).mean(axis=1), [2.5, 97.5]).tolist(),
    }


def named(layers: Any) -> dict[str, np.ndarray]:
    """Leaves of a network's parameters by name, such as `torso_0/kernel`."""
    paths = jax.tree_util.tree_leaves_with_path(layers)
    return {jax.tree_util.keystr(path, simple=True, separator="/"): np.asarray(leaf) for path, leaf in paths}


def named_q(params: Any) -> dict[str, np.ndarray]:
    """The same of a Q-learner, with its `exploration`."""
    return named({**params["network"]["params"], "exploration": params["exploration"]})


def largest_difference(ours: dict[str, np.ndarray], theirs: dict[str, np.ndarray]) -> float:
    """Of two gradients, the largest norm of a leaf's difference, relative to the norm of that leaf."""
    return max(
        float(np.linalg.norm(theirs[name] - leaf) / max(np.linalg.norm(leaf), 1e-8)) for name, leaf in ours.items()
    )


def maml(torch_python: Path, pairs: int) -> dict[str, Any]:
    """A meta-step of MAML over DQN on GridNavi."""
    distribution = tasks.make_tasks("grid_navi")
    config = fused.config_of(distribution, {})
    length = config.adaptation.rollout_length
    if length != distribution.horizon:
        raise SystemExit(f"A rollout must be one episode in PyTorch, got rollout_length = {length}.")
    params, env_params, gradient, (explored, queried) = by_hand(fused.make_gradient, distribution, config)
    size = round(params["network"]["params"]["torso_0"]["kernel"].shape[0] ** 0.5)
    given = {**as_params(named_q(params)), "goals": env_params.goal, "explored": explored, "queried": queried}
    shape = {"horizon": distribution.horizon, "size": size}
    return beside_torch("maml_torch.py", torch_python, distribution, config, given, named_q(gradient), shape, pairs)


def policy(torch_python: Path, pairs: int) -> dict[str, Any]:
    """A meta-step of MAML over policy gradients on 2-D navigation."""
    distribution = tasks.make_tasks("point_navigation")
    config = fused.config_of(distribution, fused_policy.SETTINGS)
    params, env_params, gradient, noise = by_hand(fused_policy.make_gradient, distribution, config)
    params, gradient = (named(tree["policy"]["params"]) for tree in (params, gradient))
    given = {**as_params(params), "goals": env_params.goal, "noise": noise[0], "query_noise": noise[1]}
    constants = {"speed": point_navigation.SPEED, "tolerance": point_navigation.TOLERANCE, "ridge": RIDGE}
    shape = {"horizon": distribution.horizon, **constants}
    return beside_torch("policy_torch.py", torch_python, distribution, config, given, gradient, shape, pairs)


def by_hand(make_gradient: Callable, distribution: TaskDistribution, config: MAMLConfig) -> tuple[Any, ...]:
    """Parameters, tasks, and their meta-gradient by a hand-written form, with what it drew."""
    params = make_learner("maml", distribution, config).init(jax.random.key(0)).meta.params
    env_params = sample_tasks(jax.random.key(1), distribution, "train", config.outer.tasks_per_batch)
    gradient_of = jax.jit(make_gradient(distribution, config))
    return params, env_params, *gradient_of(jax.random.key(2), params, env_params)


def as_params(leaves: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {f"params/{name}": leaf for name, leaf in leaves.items()}


def beside_torch(
    script: str,
    python: Path,
    distribution: TaskDistribution,
    config: MAMLConfig,
    given: dict[str, Any],
    gradient: dict[str, np.ndarray],
    shape: dict[str, Any],
    pairs: int,
) -> dict[str, Any]:
    """A meta-step of both, once their meta-gradients have been found to agree.

    Args:
      script: the worker in PyTorch.
      python: an interpreter that has it.
      distribution: the tasks, each with a goal.
      config: complete.
      given: what both start from, and the draws under which `gradient` arose.
      gradient: the meta-gradient that PyTorch must find, by name.
      shape: what else the worker must know.
      pairs: meta-steps of each.
    """
    rows: dict[str, dict[str, Any]] = {}
    settings = settings_of(config)
    with tempfile.TemporaryDirectory() as folder, worker(sys.executable, "maml_jaxmeta.py") as ours:
        inputs, outputs = f"{folder}/inputs.npz", f"{folder}/gradient.npz"
        np.savez(inputs, **given)
        versions = ours("prepare", task_family=distribution.name, settings=settings, seed=0, inputs=inputs)
        first = ours("meta_step")
        for name, threads in (("torch", 0), ("torch_one_thread", 1)):
            with worker(python, script) as theirs:
                arguments = {"settings": settings, "inputs": inputs, "threads": threads, **shape}
                their_versions = theirs("prepare", **arguments)
                their_first = theirs("meta_step")
                theirs("prepare", **arguments)  # that call has moved the parameters
                theirs("gradient", path=outputs)
                difference = largest_difference(gradient, dict(np.load(outputs)))
                if difference > TOLERANCE:
                    raise SystemExit(f"Both must find the same meta-gradient, got a difference of {difference:.1e}.")
                answers = in_turns(lambda pair: ours("meta_step"), lambda pair, ask=theirs: ask("meta_step"), pairs)
            rows.setdefault("jaxmeta", summary(first, answers[0], versions))
            rows[name] = {
                **summary(their_first, answers[1], their_versions),
                "gradient_difference": difference,
                **compared(*answers),
            }
    return {"tasks": distribution.name, "settings": settings, **rows}


def rl2(task_family: str, pairs: int, settings: dict[str, Any]) -> dict[str, Any]:
    """Updates of both from networks of the same size, in environment steps per second."""
    config = configure("rl2", task_family, settings)
    assert isinstance(config, RL2Config)
    lifetime, envs = config.adaptation, config.outer.tasks_per_batch
    trial, complete = lifetime.num_adaptations * lifetime.rollout_length, settings_of(config)
    if lifetime.num_envs != 1 or config.memory.cell != "gru":
        raise SystemExit("A task must have one environment, and the cell must be a GRU, as in recurrent PPO.")
    arguments = {"task_family": task_family, "settings": complete, "trial": trial, "window": trial, "seed": 0}
    with worker(sys.executable, "rl2_jaxmeta.py") as ours, worker(sys.executable, "ppo_gru.py") as theirs:
        random = ours("random_actions", task_family=task_family, envs=envs, steps=trial)
        versions = [ask("prepare", **arguments) for ask in (ours, theirs)]
        if versions[0]["parameters"] != versions[1]["parameters"]:
            raise SystemExit(f"Both must train as many parameters, got {[row['parameters'] for row in versions]}.")
        first = [ask("update") for ask in (ours, theirs)]
        answers = in_turns(lambda pair: ours("update"), lambda pair: theirs("update"), pairs)
    rows = [summary(*of_one) for of_one in zip(first, answers, versions, strict=True)]
    for row, answered in zip(rows, answers, strict=True):
        row["env_steps_per_second"] = envs * trial / row["seconds"]
        row["share_of_random_actions"] = random["seconds"] / row["seconds"]
        row["last_return"] = answered[-1]["return"]
    rows[1].update(compared(*answers))
    rate = {"random_actions_per_second": envs * trial / random["seconds"]}
    return {"tasks": task_family, "settings": complete, **rate, "jaxmeta": rows[0], "ppo_gru": rows[1]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=PARTS, help="leave out the other parts")
    parser.add_argument("--pairs", type=int, default=20, help="meta-steps of each, 20 unless given")
    parser.add_argument("--seeds", type=int, default=10, help="trainings of each, 10 unless given")
    parser.add_argument("--steps", type=int, default=100_000, help="environment steps of a training")
    parser.add_argument("--venvs", type=Path, default=Path("runs/peers"), help="where peers are installed")
    parser.add_argument("--torch-python", type=Path, help="an interpreter that has PyTorch")
    parser.add_argument("--rejax-python", type=Path, help="an interpreter that has rejax")
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()

    def require(met: bool, name: str, rule: str, value: Any) -> None:
        if not met:
            parser.exit(2, f"--{name} must {rule}, got {value}.\n")

    require(options.pairs >= 1, "pairs", "be at least 1", options.pairs)
    require(options.seeds >= 1, "seeds", "be at least 1", options.seeds)
    enough = options.steps >= 2000 and options.steps % 200 == 0
    require(enough, "steps", "be a multiple of 200, at least 2000", options.steps)
    require(options.out.parent.is_dir(), "out", "be in a folder that exists", options.out)
    for name, python in (("torch-python", options.torch_python), ("rejax-python", options.rejax_python)):
        require(python is None or python.is_file(), name, "be a file", python)

    jax.config.update("jax_platforms", "cpu")
    result: dict[str, Any] = {"machine": machine()}
    parts = [options.only] if options.only else PARTS
    for name, part in (("maml", maml), ("policy", policy)):
        if name in parts:
            result[name] = part(interpreter("torch", options.torch_python, options.venvs), options.pairs)
    if "rl2" in parts:
        result["rl2"] = [rl2(name, options.pairs, settings) for name, settings in RECURRENT.items()]
    if "dqn" in parts:
        python = interpreter("rejax", options.rejax_python, options.venvs)
        result["dqn"] = dqn(python, options.seeds, options.steps)
    options.out.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()

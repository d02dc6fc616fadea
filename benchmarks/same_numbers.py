"""Holds a rebuilt checkout to the numbers of an older one, to the bit.

    PYTHONPATH=OLD:OLD/envs:benchmarks python benchmarks/same_numbers.py record before.jsonl    # an older checkout
    python benchmarks/same_numbers.py check before.jsonl                   # this one, on the same machine

`record-spread` and `check-spread` compare distributions over seeds, where keys are split otherwise for good reason.

For every recipe on every family that suits it, at tiny settings: the metrics of five meta-steps, the digest of the
state by the values of its leaves (whatever their paths are called), and the returns of an evaluation on eight tasks;
and, for variants, the settings that those do not reach; and the complete standard settings of each recipe and family.
"""

import argparse
import hashlib
import json
import multiprocessing
import os
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

STEPS = 5
TASKS = 8
TINY = {
    "envs": 2,
    "rounds": 2,
    "hidden": (8,),
    "inner_steps": 2,
    "replay_rounds": 2,
    "tasks_per_batch": 4,
    "query_envs": 2,
    "batch_size": 0,
    "memory_width": 8,
    "minibatches": 2,
    "epochs": 2,
    "slots": 4,
    "word": 4,
    "heads": 2,
    "population": 2,
    "encoder_width": 8,
    "sources": 3,
    "map_width": 4,
    "map_steps": 2,
    "bank_batch": 4,
    "source_steps": 2,
    "source_replay_rounds": 3,
    "meta_steps": 10,
    "tasks_per_group": 0,
}
RECIPES = (
    *("maml", "fomaml", "anil", "meta_sgd", "reptile", "learned_rule", "hyper_policy"),
    *("hypernetwork", "mapping", "rl2", "mann", "snail", "scratch", "finetune"),
)
FAMILIES = {
    "grid_navi": "grid_navi:size=3,horizon=4",
    "maze": "maze:size=5,horizon=9",
    "cartpole": "cartpole:horizon=6",
    "bandit": "bandit:arms=3,pulls=4",
    "gaussian_bandit": "gaussian_bandit:arms=3,pulls=4",
    "tabular_mdp": "tabular_mdp:states=3,actions=2,horizon=4",
    "recommender": "recommender:items=4,features=2,session=4",
    "point_navigation": "point_navigation:horizon=5",
    "acrobot": "acrobot:horizon=5",
    "mountain_car": "mountain_car:horizon=5",
    "pendulum": "pendulum:horizon=5",
    "reacher": "reacher:horizon=5",
    "probe": "probe",
    "gymnax": "gymnax:id=MountainCar-v0,vary=force@0.001@0.002,horizon=5",
}
GRID = "grid_navi:size=3,horizon=4"
POINT = "point_navigation:horizon=5"
VARIANTS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "double off, dueling, huber": ("maml", GRID, {"double": False, "dueling": True, "huber": 1.0}),
    "tabular": ("maml", GRID, {"agent": "tabular_q"}),
    "replay batches, mixed": ("maml", GRID, {"batch_size": 4, "n_step": 2, "mixed_targets": True}),
    "td loss": ("maml", GRID, {"outer_loss": "td", "lives_per_task": 1}),
    "monte carlo loss": ("maml", GRID, {"outer_loss": "monte_carlo", "lives_per_task": 2}),
    "scored last": ("maml", GRID, {"scored_rounds": "last", "sampling_correction": False}),
    "scored before": ("maml", GRID, {"scored_rounds": "before_and_every", "outer_discount": 0.9}),
    "remat, many rounds": ("maml", GRID, {"rounds": 6, "remat": True}),
    "nested remat": ("maml", GRID, {"rounds": 6, "nested_remat": True}),
    "groups": ("maml", GRID, {"tasks_per_group": 2}),
    "truncated": ("maml", GRID, {"rounds": 4, "stretch": 2}),
    "es": ("maml", GRID, {"outer_gradient": "es", "outer_loss": "return", "lives_per_task": 1}),
    "pes truncated": (
        "maml",
        GRID,
        {"outer_gradient": "pes", "outer_loss": "return", "lives_per_task": 1, "rounds": 4, "stretch": 2},
    ),
    "adam under es": (
        "anil",
        GRID,
        {"outer_gradient": "es", "outer_loss": "td", "lives_per_task": 1, "inner_optimizer": "adam"},
    ),
    "policies": ("maml", GRID, {"agent": "actor_critic", "baseline": "value", "estimator": "dice"}),
    "policies, lvc": ("fomaml", POINT, {"estimator": "lvc", "inner_entropy": 0.1, "normalised": False}),
    "proximal": ("maml", POINT, {"outer_update": "proximal", "lives_per_task": 1}),
    "proximal, grid": (
        "meta_sgd",
        GRID,
        {"agent": "actor_critic", "outer_update": "proximal", "lives_per_task": 1, "scored_rounds": "last"},
    ),
    "falling step size": ("anil", GRID, {"learning_rate_left": 0.1, "entropy": 0.1}),
    "slow targets": ("maml", GRID, {"target_step_size": 0.5, "max_inner_norm": 1.0, "epsilon_decay": 0.5}),
    "recurrent rule": ("learned_rule", GRID, {"rule": "recurrent", "rule_base": "rmsprop"}),
    "recurrent rule, lstm": ("learned_rule", GRID, {"rule": "recurrent", "rule_cell": "lstm", "rule_base": "sgd"}),
    "attention rule": ("learned_rule", GRID, {"rule": "attention"}),
    "rule by backpropagation": (
        "learned_rule",
        GRID,
        {"outer_gradient": "backpropagation", "outer_loss": "policy_gradient", "lives_per_task": 2, "temperature": 1.0},
    ),
    "hyper schedule": ("hyper_policy", GRID, {"form": "schedule"}),
    "hyper static": ("hyper_policy", GRID, {"form": "static"}),
    "hyper constant, pes": ("hyper_policy", GRID, {"form": "constant", "outer_gradient": "pes"}),
    "hyper structure": ("hyper_policy", GRID, {"structure": True}),
    "hypernetwork, whole": ("hypernetwork", GRID, {"generated": "whole", "encoder": "attention"}),
    "hypernetwork, low rank": ("hypernetwork", GRID, {"generated": "low_rank", "renewed": "first", "fine_tuned": True}),
    "mapping, full": ("mapping", GRID, {"map_form": "full", "reads": "nearest", "td": 1.0}),
    "mapping, diagonal": ("mapping", GRID, {"map_form": "diagonal", "reads": "average", "beta": 0.1}),
    "mapping, low rank": (
        "mapping",
        GRID,
        {"map_form": "low_rank", "reads": "attention", "representation": "inferred"},
    ),
    "mapping, identity": ("mapping", GRID, {"map_form": "identity", "distillation": 0.5}),
    "lstm, plain": ("rl2", GRID, {"cell": "lstm", "reading": "plain", "span": 3, "entropy_left": 0.5}),
    "longer trials": ("rl2", GRID, {"trial_rounds": 3, "gae_lambda": 0.5, "value_weight": 0.1}),
    "several environments": ("rl2", GRID, {"envs": 3}),
    "context": ("snail", GRID, {"attention_layers": 1, "context": 32}),
}


SPREAD = ("maml grid_navi", "reptile grid_navi", "rl2 grid_navi", "finetune grid_navi", "truncated", "pes truncated")
SPREAD += ("proximal", "mapping grid_navi")
SPREAD_STEPS, SEEDS = 40, 20
"""Of what is compared in distribution, where numbers cannot be equal since keys are split otherwise."""


def cases() -> dict[str, tuple[str, str, dict[str, Any]]]:
    """Recipe, tasks and further settings, by name."""
    plain = {f"{recipe} {family}": (recipe, spec, {}) for recipe in RECIPES for family, spec in FAMILIES.items()}
    return plain | VARIANTS


def bits(array: Any) -> str:
    import numpy as np

    return np.asarray(array).tobytes().hex()


def digest(tree: Any) -> list[str]:
    """Of each leaf's dtype, shape and values, sorted."""
    import jax
    import numpy as np

    leaves = [np.asarray(leaf) for leaf in jax.tree.leaves(tree)]
    return sorted(
        hashlib.sha256(f"{leaf.dtype}{leaf.shape}".encode() + leaf.tobytes()).hexdigest()[:16] for leaf in leaves
    )


def measured(name: str, recipe: str, spec: str, settings: dict[str, Any]) -> dict[str, Any]:
    """What one case comes to; where it does not apply, that."""
    import jax
    import numpy as np
    from same_numbers_engine import UsageError, learner_of, measure, meta_step, sample_tasks, standard_settings

    import jaxmeta

    tasks = jaxmeta.make_tasks(spec)
    try:
        learner = learner_of(recipe, tasks, TINY, settings)
    except UsageError as error:
        return {"case": name, "refused": type(error).__name__}
    result: dict[str, Any] = {"case": name}
    if not settings:
        family = spec.partition(":")[0]
        result["standard"] = standard_settings(recipe, family if family != "gymnax" else spec)
    init_key, step_key, task_key, measure_key = jax.random.split(jax.random.key(0), 4)
    state = jax.jit(learner.init)(init_key)
    result["start"] = digest(state)
    update, metrics = jax.jit(meta_step(learner)), []
    for step in range(STEPS):
        tasks_key, update_key = jax.random.split(jax.random.fold_in(step_key, step))
        env_params = sample_tasks(tasks_key, tasks, "train", learner.tasks_per_batch)
        state, told = update(update_key, state, env_params)
        metrics.append({metric: bits(value) for metric, value in sorted(dict(told).items())})
    result |= {"metrics": metrics, "end": digest(state), "env_steps": learner.env_steps_per_task}
    env_params = sample_tasks(task_key, tasks, "test", TASKS)
    returns, trial = jax.jit(lambda key, meta, env_params: measure(key, learner, meta, tasks, env_params))(
        measure_key, learner.meta(state), env_params
    )
    return result | {"returns": bits(returns), "trial": bits(trial), "finite": bool(np.isfinite(returns).all())}


def spread(name: str, recipe: str, spec: str, settings: dict[str, Any]) -> list[float]:
    """The return while training, over the last of some meta-steps, of each of several seeds."""
    import jax
    import numpy as np
    from same_numbers_engine import learner_of, meta_step, sample_tasks

    import jaxmeta

    tasks = jaxmeta.make_tasks(spec)
    learner = learner_of(recipe, tasks, TINY, settings)
    update = meta_step(learner)

    def run(seed):
        init_key, step_key = jax.random.split(jax.random.key(seed))

        def step(state, key):
            task_key, update_key = jax.random.split(key)
            state, reported = update(update_key, state, sample_tasks(task_key, tasks, "train", learner.tasks_per_batch))
            return state, reported["return"]

        return jax.lax.scan(step, learner.init(init_key), jax.random.split(step_key, SPREAD_STEPS))[1]

    returns = np.asarray(jax.jit(jax.vmap(run))(np.arange(SEEDS)))
    return returns[:, -SPREAD_STEPS // 2 :].mean(axis=1).tolist()


def spreads() -> dict[str, list[float]]:
    """`spread` of a case of each outer rule."""
    return {name: spread(name, *cases()[name]) for name in SPREAD}


def _one(case: tuple[str, tuple[str, str, dict[str, Any]]]) -> str:
    from tests import compilation

    name, arguments = case
    with compilation.quickly():
        return json.dumps(measured(name, *arguments), sort_keys=True)


def _run(wanted: dict[str, Any]) -> Iterator[dict[str, Any]]:
    programs = str(Path(tempfile.gettempdir()) / "same_numbers_programs")
    os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", programs)
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
    context = multiprocessing.get_context("spawn")
    with context.Pool(2, maxtasksperchild=20) as pool:
        for line in pool.imap_unordered(_one, wanted.items()):
            yield json.loads(line)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["record", "check", "record-spread", "check-spread"])
    parser.add_argument("file", type=Path)
    parser.add_argument("--only", nargs="*", help="parts of the names of cases")
    parser.add_argument("--quick", action="store_true", help="all recipes on GridNavi, two of them everywhere")
    options = parser.parse_args()
    wanted = {
        name: case for name, case in cases().items() if not options.only or any(part in name for part in options.only)
    }
    if options.quick:
        few = ("grid_navi", "maml ", "rl2 ")
        wanted = {name: case for name, case in wanted.items() if name in VARIANTS or any(part in name for part in few)}
    if options.what == "record-spread":
        options.file.write_text(json.dumps(spreads()))
        return 0
    if options.what == "check-spread":
        import numpy as np
        from scipy.stats import ks_2samp

        old, now = json.loads(options.file.read_text()), spreads()
        chances = {name: np.asarray(ks_2samp(old[name], now[name]))[1].item() for name in old}
        for name, chance in chances.items():
            print(f"{name}: Kolmogorov-Smirnov p = {chance:.3f} over {SEEDS} seeds")
        return int(min(chances.values()) < 0.01 / len(chances))
    before = {}
    if options.file.exists():
        before = {row["case"]: row for row in map(json.loads, options.file.read_text().splitlines())}
    if options.what == "record":
        wanted = {name: case for name, case in wanted.items() if name not in before}
        with options.file.open("a") as file:
            for row in _run(wanted):
                print(json.dumps(row, sort_keys=True), file=file, flush=True)
        return 0
    outcome: Counter[str] = Counter()
    for row in _run({name: case for name, case in wanted.items() if name in before}):
        old = before[row["case"]]
        if "standard" in old and "standard" in row:  # what a recipe no longer has is not compared
            both = old["standard"].keys() & row["standard"].keys()
            old, row = (one | {"standard": {name: one["standard"][name] for name in both}} for one in (old, row))
        differs = [part for part in old if row.get(part) != old[part]]
        outcome["differ" if differs else "equal"] += 1
        if differs:
            print(f"{row['case']}: {', '.join(differs)}", flush=True)
    print(dict(outcome))
    return int(outcome["differ"] > 0)


if __name__ == "__main__":
    sys.exit(main())

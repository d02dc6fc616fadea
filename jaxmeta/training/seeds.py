"""Several meta-learners in one program: a member for each seed, and for each value of what is swept.

A member is the run that its seed and its values would be alone: the same initial state, the same keys. Members are a
leading axis of every leaf of the state, and `chunks.make_chunk` vmaps a meta-step over it. A run without `seeds` is
single; whatever is said of members here is then said of none.
"""

import itertools
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxmeta.algorithms import recipes
from jaxmeta.core.config import HyperConfig
from jaxmeta.core.errors import LARGEST_INT, UsageError, as_kind, require
from jaxmeta.core.tasks import read_value
from jaxmeta.core.trees import strongly_typed
from jaxmeta.core.types import Hypers, Key, MetaLearner, MetaState, PyTree, TaskDistribution, sample_tasks

TRACED = HyperConfig.__struct_fields__
"""What can be swept."""
MOST_MEMBERS = 1024


class Member(NamedTuple):
    """One of a population."""

    seed: int
    hypers: dict[str, float]
    """What is swept, by name."""

    def __str__(self) -> str:
        """In words: `seed 3, learning_rate 0.1`."""
        return ", ".join(f"{name} {value:g}" for name, value in {"seed": self.seed, **self.hypers}.items())


def parse_seeds(text: str) -> tuple[int, ...]:
    """Reads seeds that were written as text.

    >>> parse_seeds("0-3"), parse_seeds("0,3,5")
    ((0, 1, 2, 3), (0, 3, 5))
    """
    ranges = []
    for piece in text.split(","):
        found = re.fullmatch(r"(\d{1,10})(?:-(\d{1,10}))?", piece, re.ASCII)
        if not found:
            raise UsageError("--seeds", "be written 0-7 or 0,3,5", text)
        first, last = int(found[1]), int(found[2] or found[1])
        require(first <= last, "--seeds", "go from a lower seed to a higher one", piece)
        ranges.append(range(first, last + 1))
    count = sum(map(len, ranges))
    require(count <= MOST_MEMBERS, "--seeds", f"hold at most {MOST_MEMBERS} seeds", count)
    return tuple(itertools.chain(*ranges))


def parse_sweep(texts: Mapping[str, str]) -> dict[str, list[float]]:
    """Reads values of hyper-parameters that were written as text.

    >>> parse_sweep({"learning_rate": "0.1,0.3"})
    {'learning_rate': [0.1, 0.3]}
    """
    for name in texts:
        require_traced(name)
    return {name: [read_value(name, value, float) for value in text.split(",")] for name, text in texts.items()}


def spell_seeds(seeds: Sequence[int]) -> str:
    """What `parse_seeds` reads, as short as it gets.

    >>> spell_seeds([0, 1, 2, 3]), spell_seeds([0, 3, 5])
    ('0-3', '0,3,5')
    """
    if len(seeds) > 1 and list(seeds) == list(range(seeds[0], seeds[-1] + 1)):
        return f"{seeds[0]}-{seeds[-1]}"
    return ",".join(map(str, seeds))


def asked(seed: int | None, seeds: Sequence[int] | None, sweep: Mapping[str, Sequence[float]] | None) -> dict[str, Any]:
    """What `config.json` is to hold of a population, as far as it was asked for.

    Raises:
      UsageError: it could not be one, whatever the recipe.
    """
    found: dict[str, Any] = {}
    if seeds is not None:
        require(seed is None, "seed", "be left out where seeds are given", seed)
        require(isinstance(seeds, Sequence) and not isinstance(seeds, str), "seeds", "be a sequence of integers", seeds)
        found["seeds"] = [as_kind("seeds", one, int) for one in seeds]
        require(len(found["seeds"]) >= 2, "seeds", "hold at least 2 seeds", found["seeds"])
        found["seed"] = found["seeds"][0]
    if sweep is not None:
        require(isinstance(sweep, Mapping) and len(sweep) > 0, "sweep", "name at least one hyper-parameter", sweep)
        found["sweep"] = {}
        for name, values in sweep.items():
            require_traced(name)
            is_some = isinstance(values, Sequence) and not isinstance(values, str) and len(values) > 0
            require(is_some, f"sweep {name}", "hold at least one value", values)
            found["sweep"][name] = [as_kind(name, value, float) for value in values]
    return found


def completed(config: Mapping[str, Any]) -> dict[str, Any]:
    """A configuration whose population is complete: what is swept over no seeds is swept over its one seed.

    Raises:
      UsageError: its population is none.
    """
    config = dict(config)
    if "sweep" in config:
        config.setdefault("seeds", [config["seed"]])
    if "seeds" not in config:
        return config
    seeds, sweep = config["seeds"], config.get("sweep", {})
    for seed in seeds:
        require(0 <= seed <= LARGEST_INT, "seeds", f"be from 0 to {LARGEST_INT}", seed)
    require(config["seed"] == seeds[0], "seed", f"be the first of seeds, {seeds[0]}", config["seed"])
    for name, values in {"seeds": seeds, **sweep}.items():
        require(len(set(values)) == len(values), name if name == "seeds" else f"sweep {name}", "repeat nothing", values)
    for name, values in sweep.items():
        require_traced(name)
        for value in values:
            HyperConfig(**{name: value})
    count = len(seeds) * int(np.prod([len(values) for values in sweep.values()], dtype=object))
    require(count <= MOST_MEMBERS, "seeds", f"make at most {MOST_MEMBERS} members with what is swept", count)
    return config


def require_traced(name: str) -> None:
    """Refuses to sweep what is no traced hyper-parameter."""
    rule = f"name a traced hyper-parameter ({', '.join(TRACED)}), for all other settings are static"
    require(name in TRACED, "sweep", rule, name)


def require_sweepable(recipe: str, tasks: TaskDistribution, settings: Mapping[str, Any], sweep: Mapping) -> None:
    """Refuses what cannot be swept in a recipe: a member must be the very run that has its value as a setting.

    Raises:
      UsageError: the recipe's meta-parameters hold no `Hypers`, or its program or its start takes more from the
        setting than what they hold.
    """
    key = jax.random.key(0)

    def composed(**changed: float) -> tuple[str, MetaState]:
        learner = recipes.compose(recipe, tasks, {**settings, **changed})
        start = learner.init(key)
        env_params = jax.eval_shape(lambda: sample_tasks(key, tasks, "train", learner.tasks_per_batch))
        return jax.jit(learner.update).lower(key, start, env_params).as_text(), start

    program, start = composed()
    holds = len(_hypers_in(start.meta)) > 0
    for name, values in sweep.items():
        rule = f"name what the meta-parameters of {recipe} hold, and they hold no hyper-parameters"
        require(holds, "sweep", rule, name)
        for value in values:
            of_value, start_of_value = composed(**{name: value})
            same = of_value == program and _equal(start_of_value, with_hypers(start, {name: value}))
            rule = f"set nothing but a traced hyper-parameter, and in {recipe} more than that depends on it"
            require(same, f"sweep {name}", rule, value)


def members_of(config: Mapping[str, Any]) -> list[Member]:
    """The members of a run, seeds in their order within each value; none of a single run."""
    sweep = config.get("sweep", {})
    values = [dict(zip(sweep, chosen, strict=True)) for chosen in itertools.product(*sweep.values())]
    return [Member(seed, hypers) for hypers in values for seed in config.get("seeds", ())]


def config_of(config: Mapping[str, Any], member: Member) -> dict[str, Any]:
    """The configuration of the run that a member would be alone."""
    alone = {name: value for name, value in config.items() if name not in ("seeds", "sweep")}
    return {**alone, "seed": member.seed, "settings": {**config["settings"], **member.hypers}}


def described(config: Mapping[str, Any]) -> str:
    """Which seeds a run has, and what is swept.

    >>> described({"seed": 4}), described({"seed": 0, "seeds": [0, 1, 2], "sweep": {"epsilon": [0.5, 1.0]}})
    ('seed 4', 'seeds 0-2, epsilon=0.5,1')
    """
    seeds = config.get("seeds", [config["seed"]])
    swept = [f"{name}={','.join(f'{value:g}' for value in values)}" for name, values in config.get("sweep", {}).items()]
    return ", ".join([f"seed{'s' if len(seeds) > 1 else ''} {spell_seeds(seeds)}", *swept])


def seeds_of(config: Mapping[str, Any]) -> np.ndarray:
    """What a run draws its keys from, [] int32, or [members]: numbers, unlike keys, are the same to every process."""
    members = members_of(config)
    return np.asarray([member.seed for member in members] if members else config["seed"], np.int32)


def root_keys(seeds: jax.Array | np.ndarray) -> tuple[Key, Key]:
    """What a run begins with, and what each of its meta-steps folds its number into: [] each, or [members]."""

    def split(seed: jax.Array) -> tuple[Key, Key]:
        init_key, step_key = jax.random.split(jax.random.key(seed))
        return init_key, step_key

    seeds = jnp.asarray(seeds)
    return jax.vmap(split)(seeds) if seeds.ndim else split(seeds)


def beginning(learner: MetaLearner, config: Mapping[str, Any]) -> Callable[[jax.Array | np.ndarray], MetaState]:
    """What makes the initial state of a run, from `seeds_of` its configuration."""
    members = members_of(config)

    def begin(seeds: jax.Array | np.ndarray) -> MetaState:
        init_key, _ = root_keys(seeds)
        if not members:
            return strongly_typed(learner.init(init_key))
        states = jax.vmap(learner.init)(init_key)
        swept = {name: jnp.array([member.hypers[name] for member in members]) for name in members[0].hypers}
        return strongly_typed(with_hypers(states, swept))

    return begin


def with_hypers(state: MetaState, values: Mapping[str, Any]) -> MetaState:
    """A state whose meta-parameters hold these values, by the names of `Hypers`."""

    def changed(node: PyTree) -> PyTree:
        if not isinstance(node, Hypers):
            return node
        return node.replace(**{name: jnp.asarray(value, getattr(node, name).dtype) for name, value in values.items()})

    return state.replace(meta=jax.tree.map(changed, state.meta, is_leaf=_is_hypers)) if values else state


def members(state: MetaState) -> list[MetaState]:
    """The states of a population's members, in the order of seeds within each swept value; of a single run, its own."""
    if jnp.ndim(state.step) == 0:
        return [state]
    return [jax.tree.map(lambda leaf, index=index: leaf[index], state) for index in range(len(state.step))]


def _hypers_in(meta: PyTree) -> list[Hypers]:
    return [node for node in jax.tree.leaves(meta, is_leaf=_is_hypers) if _is_hypers(node)]


def _is_hypers(node: PyTree) -> bool:
    return isinstance(node, Hypers)


def _equal(one: PyTree, other: PyTree) -> bool:
    leaves, others = jax.tree.leaves(one), jax.tree.leaves(other)
    return all(np.array_equal(leaf, its) for leaf, its in zip(leaves, others, strict=True))

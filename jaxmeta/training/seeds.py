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

from jaxmeta.algorithms import registry
from jaxmeta.core.config import AlgorithmConfig
from jaxmeta.core.errors import LARGEST_INT, UsageError, as_kind, require
from jaxmeta.core.settings import flattened, match, traced_settings, with_values
from jaxmeta.core.trees import strongly_typed
from jaxmeta.core.types import Hyperparams, Key, MetaLearner, MetaState, PyTree, TaskDistribution

MOST_MEMBERS = 1024


class Member(NamedTuple):
    """One learner of a run of several."""

    seed: int
    hyperparams: dict[str, float]
    """What is swept, by the path of the setting."""

    def __str__(self) -> str:
        """In words: `seed 3, learning_rate 0.1`."""
        named = {"seed": self.seed, **{last_word(path): value for path, value in self.hyperparams.items()}}
        return ", ".join(f"{name} {value:g}" for name, value in named.items())


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

    >>> parse_sweep({"inner.learning_rate": "0.1,0.3"})
    {'inner.learning_rate': [0.1, 0.3]}
    """
    try:
        return {name: [float(value) for value in text.split(",")] for name, text in texts.items()}
    except ValueError:
        raise UsageError("--sweep", "be numbers between commas", ", ".join(texts.values())) from None


def spell_seeds(seeds: Sequence[int]) -> str:
    """What `parse_seeds` reads, as short as it gets.

    >>> spell_seeds([0, 1, 2, 3]), spell_seeds([0, 3, 5])
    ('0-3', '0,3,5')
    """
    if len(seeds) > 1 and list(seeds) == list(range(seeds[0], seeds[-1] + 1)):
        return f"{seeds[0]}-{seeds[-1]}"
    return ",".join(map(str, seeds))


def requested(seed: int | None, seeds: Sequence[int] | None) -> dict[str, Any]:
    """The entries of `config.json` for a run's seeds, as far as they were given.

    Raises:
      UsageError: they cannot be any, whatever the algorithm.
    """
    if seeds is None:
        return {}
    require(seed is None, "seed", "be left out where seeds are given", seed)
    require(isinstance(seeds, Sequence) and not isinstance(seeds, str), "seeds", "be a sequence of integers", seeds)
    found = [as_kind("seeds", one, int) for one in seeds]
    require(len(found) >= 2, "seeds", "hold at least 2 seeds", found)
    return {"seeds": found, "seed": found[0]}


def swept(sweep: Mapping[str, Sequence[float]], config: AlgorithmConfig) -> dict[str, list[float]]:
    """What is swept, by the path of the setting.

    Raises:
      UsageError: it is no traced hyper-parameter, a value is out of range, or one comes twice.
    """
    require(isinstance(sweep, Mapping) and len(sweep) > 0, "sweep", "name at least one hyper-parameter", sweep)
    traced, found = list(traced_settings(config).values()), {}
    for name, values in sweep.items():
        paths = match(name, traced)
        known = ", ".join(sorted(map(last_word, traced))) or "none"
        rule = f"name a traced hyper-parameter ({known}), for all other settings are static"
        require(len(paths) == 1, "sweep", rule, name)
        is_some = isinstance(values, Sequence) and not isinstance(values, str) and len(values) > 0
        require(is_some, f"sweep {name}", "hold at least one value", values)
        values = [as_kind(name, value, float) for value in values]
        require(len(set(values)) == len(values), f"sweep {name}", "repeat nothing", values)
        for value in values:
            with_values(config, {paths[0]: value})
        rule = "be 1 for all or for none, for at 1 no target parameters are kept"
        alike = last_word(paths[0]) != "target_step_size" or 1.0 not in values or len(values) == 1
        require(alike, f"sweep {name}", rule, values)
        found[paths[0]] = values
    return found


def validated(config: Mapping[str, Any]) -> dict[str, Any]:
    """A configuration with its seeds resolved: a sweep without seeds runs over its one seed.

    Raises:
      UsageError: it has no valid seeds.
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
    require(len(set(seeds)) == len(seeds), "seeds", "repeat nothing", seeds)
    count = len(seeds) * int(np.prod([len(values) for values in sweep.values()], dtype=object))
    require(count <= MOST_MEMBERS, "seeds", f"make at most {MOST_MEMBERS} members with what is swept", count)
    return config


def compose(config: Mapping[str, Any], tasks: TaskDistribution, settings: AlgorithmConfig) -> MetaLearner:
    """The learner of all members of a run.

    Args:
      config: of the run, complete.
      tasks: what it is trained on.
      settings: its complete settings.

    Raises:
      UsageError: settings do not suit one another, those of some member among them; or what is swept cannot be, or is
        not among the hyper-parameters that the meta-parameters hold.
    """
    algorithm, sweep = config["algorithm"], swept(config["sweep"], settings) if "sweep" in config else {}
    first = with_values(settings, {path: values[0] for path, values in sweep.items()})
    learner = registry.compose(algorithm, tasks, first)
    for path, values in sweep.items():
        start = jax.eval_shape(learner.init, jax.random.key(0))
        rule = f"name what the meta-parameters of {algorithm} hold, and they hold no hyper-parameters"
        require(len(_hyperparams_in(start.meta)) > 0, "sweep", rule, path)
        rule = f"set nothing but a traced hyper-parameter, and in {algorithm} more than that depends on it"
        for value in values:
            alone = registry.compose(algorithm, tasks, with_values(first, {path: value}))
            same = not _hyperparams_in(start.aux_state) or _carried(alone, {}) == _carried(
                learner, {last_word(path): value}
            )
            require(same, f"sweep {path}", rule, value)
    return learner


def _carried(learner: MetaLearner, values: Mapping[str, float]) -> list[float]:
    """The hyper-parameters in a learner's initial state, as `with_hyperparams` sets them."""

    def in_state() -> list[Hyperparams]:
        return _hyperparams_in(with_hyperparams(learner.init(jax.random.key(0)), values).aux_state)

    return [number for leaf in jax.tree.leaves(jax.jit(in_state)()) for number in np.ravel(leaf).tolist()]


def members_of(config: Mapping[str, Any]) -> list[Member]:
    """The members of a run, seeds in their order within each value; none of a single run."""
    sweep = config.get("sweep", {})
    values = [dict(zip(sweep, chosen, strict=True)) for chosen in itertools.product(*sweep.values())]
    return [Member(seed, hyperparams) for hyperparams in values for seed in config.get("seeds", ())]


def config_of(config: Mapping[str, Any], member: Member) -> dict[str, Any]:
    """The configuration of the run that a member would be alone."""
    alone = {name: value for name, value in config.items() if name not in ("seeds", "sweep")}
    settings = {**flattened(config["settings"]), **member.hyperparams}
    return {**alone, "seed": member.seed, "settings": settings}


def last_word(path: str) -> str:
    """The name of a setting without its group.

    >>> last_word("inner.learning_rate")
    'learning_rate'
    """
    return path.rpartition(".")[2]


def described(config: Mapping[str, Any]) -> str:
    """Which seeds a run has, and what is swept.

    >>> described({"seed": 4}), described({"seed": 0, "seeds": [0, 1, 2], "sweep": {"agent.epsilon": [0.5, 1.0]}})
    ('seed 4', 'seeds 0-2, epsilon=0.5,1')
    """
    seeds = config.get("seeds", [config["seed"]])
    swept = [
        f"{last_word(path)}={','.join(f'{value:g}' for value in values)}"
        for path, values in config.get("sweep", {}).items()
    ]
    return ", ".join([f"seed{'s' if len(seeds) > 1 else ''} {spell_seeds(seeds)}", *swept])


def seeds_of(config: Mapping[str, Any]) -> np.ndarray:
    """What a run draws its keys from, [] int32, or [members]: numbers, unlike keys, are the same to every process."""
    members = members_of(config)
    return np.asarray([member.seed for member in members] if members else config["seed"], np.int32)


def root_keys(seeds: jax.Array | np.ndarray) -> tuple[Key, Key]:
    """Keys of the initial state, and of meta-steps, each of which folds in its number: [] each, or [members]."""

    def split(seed: jax.Array) -> tuple[Key, Key]:
        init_key, step_key = jax.random.split(jax.random.key(seed))
        return init_key, step_key

    seeds = jnp.asarray(seeds)
    return jax.vmap(split)(seeds) if seeds.ndim else split(seeds)


def make_initial_state(
    learner: MetaLearner, config: Mapping[str, Any]
) -> Callable[[jax.Array | np.ndarray], MetaState]:
    """What makes the initial state of a run, from `seeds_of` its configuration."""
    members = members_of(config)

    def initial_state(seeds: jax.Array | np.ndarray) -> MetaState:
        init_key, _ = root_keys(seeds)
        if not members:
            return strongly_typed(learner.init(init_key))
        states = jax.vmap(learner.init)(init_key)
        values = {last_word(path): [member.hyperparams[path] for member in members] for path in members[0].hyperparams}
        return strongly_typed(with_hyperparams(states, values))

    return initial_state


def with_hyperparams(state: MetaState, values: Mapping[str, Any]) -> MetaState:
    """A state whose hyper-parameters have these values, by the names of `Hyperparams`."""

    def alike(value: Any, leaf: jax.Array) -> jax.Array:
        array = jnp.asarray(value, leaf.dtype)
        return jnp.broadcast_to(array.reshape(array.shape + (1,) * (leaf.ndim - array.ndim)), leaf.shape)

    def changed(node: PyTree) -> PyTree:
        if not isinstance(node, Hyperparams):
            return node
        return node.replace(**{name: alike(value, getattr(node, name)) for name, value in values.items()})

    meta, aux_state = jax.tree.map(changed, (state.meta, state.aux_state), is_leaf=_is_hyperparams)
    return state.replace(meta=meta, aux_state=aux_state)


def members(state: MetaState) -> list[MetaState]:
    """The states of the members, in the order of seeds within each swept value; of a single run, its own."""
    if jnp.ndim(state.step) == 0:
        return [state]
    return [jax.tree.map(lambda leaf, index=index: leaf[index], state) for index in range(len(state.step))]


def _hyperparams_in(meta: PyTree) -> list[Hyperparams]:
    return [node for node in jax.tree.leaves(meta, is_leaf=_is_hyperparams) if _is_hyperparams(node)]


def _is_hyperparams(node: PyTree) -> bool:
    return isinstance(node, Hyperparams)

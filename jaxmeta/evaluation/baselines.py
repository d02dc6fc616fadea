"""What every evaluation is held against: its agent from a fresh start (`scratch`) and from a trained one (`finetune`).

Both get the environment steps that the evaluated learner gets, in the same rounds, and all data of a lifetime to learn
from. Neither is differentiated through, so both may use Adam, a replay buffer and many gradient steps. How they adapt
is tuned on validation tasks. They are one learner from two starts, so one program measures both. `tuned_baselines` has
what an evaluation does with them.
"""

import functools
import itertools
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from msgspec import structs

from jaxmeta.algorithms.baselines import FinetuneConfig, ScratchConfig, finetune, scratch
from jaxmeta.algorithms.registry import configure
from jaxmeta.core.compilation import compiler_options
from jaxmeta.core.config import AlgorithmConfig
from jaxmeta.core.settings import paths_of, with_values
from jaxmeta.core.types import Key, MetaLearner, Params, PyTree, TaskDistribution, batch_of_tasks, sample_tasks
from jaxmeta.evaluation.measurement import Measured, in_groups, measure_task
from jaxmeta.inner.gradient import GradientConfig, InnerOptimizerConfig
from jaxmeta.rl.q_learning import QLearningConfig

LEARNING_RATES = (1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2)
"""Tried together, with everything else that is tried."""
TUNING_TASKS = 32
MOST_GRADIENT_STEPS = 3000
"""Of a whole lifetime: what is tried at every round of a long one ends sooner."""
ADAPTING = {
    "agent.batch_size": 32,
    "agent.temperature": 0.0,
    "agent.target_step_size": 0.1,
    "agent.surrogate": "lvc",
    "agent.mixed_targets": False,
    "agent.structure": False,
    "inner.optimizer": "adam",
}
"""How both adapt, but for what is tuned; what an agent has no setting for does not apply."""
PRETRAINING = {
    "adaptation.num_envs": 16,
    "agent.epsilon": 0.2,
    "agent.epsilon_decay": 1.0,
    "agent.n_step": 1,
    "agent.batch_size": 256,
    "inner.learning_rate": 1e-3,
    "inner.num_steps": 4,
    "outer.tasks_per_batch": 32,
}
"""How `finetune` learns all training tasks at once: many environments, so that its steps are taken in parallel."""


class Grid(NamedTuple):
    """The values that are tried; tuning starts with the first of each."""

    n_steps: tuple[int, ...]
    epsilons: tuple[float, ...]
    temperatures: tuple[float, ...]
    num_steps: tuple[int, ...]
    """A ladder, climbed from its middle for as long as it gets better."""

    @property
    def middle(self) -> int:
        """The first number of steps that is tried."""
        return len(self.num_steps) // 2

    @property
    def trials_in_the_middle(self) -> int:
        """How many are made there before the ladder is climbed."""
        return len(self.n_steps) + len(self.epsilons) + len(self.temperatures) - 2


def grid_of(config: FinetuneConfig) -> Grid:
    """What there is to tune in a learner's agent: much about exploration and targets of action values, of a policy how
    long it learns from each rollout.
    """
    if not isinstance(config.agent, QLearningConfig):
        return Grid((1,), (1.0,), (0.0,), (1, 3, 10, 30, 100))
    temperature = config.agent.temperature
    temperatures = (0.0, temperature) if temperature else (0.0,)
    most = MOST_GRADIENT_STEPS // config.adaptation.num_adaptations
    ladder = tuple(steps for steps in (10, 30, 100, 300, 1000) if steps <= max(most, 10))
    return Grid((1, 0), (1.0, 0.3), temperatures, ladder)


@dataclass(frozen=True, kw_only=True)
class Choice:
    """How a baseline adapts."""

    learning_rate: float
    """Adam's."""
    epsilon: float
    temperature: float
    """Of its softmax policy over action values; 0 is the greedy policy."""
    num_steps: int
    """Gradient steps of an adaptation."""
    n_step: int

    def on_edge(self, grid: Grid) -> bool:
        """Whether the step size or the number of steps lies at an end of its grid: a wider one might find better."""
        return self.learning_rate in _ends(LEARNING_RATES) or self.num_steps in _ends(grid.num_steps)


def first_choice(grid: Grid) -> Choice:
    """The choice that tuning starts with."""
    return Choice(
        learning_rate=LEARNING_RATES[0],
        epsilon=grid.epsilons[0],
        temperature=grid.temperatures[0],
        num_steps=grid.num_steps[grid.middle],
        n_step=grid.n_steps[0],
    )


class Tried(NamedTuple):
    """A choice, and what it gave on validation tasks."""

    choice: Choice
    grid: Grid
    validation_return: float | None
    """Mean return of an episode after the last round; None where it is not known."""
    source: str = "tuned"
    """Whether it was `tuned` just now, `given` by the caller, `shipped` with the package, or `cached` before."""

    def report(self) -> dict[str, Any]:
        """What an evaluation writes down about the tuning."""
        on_edge = self.choice.on_edge(self.grid)
        found = {"on_edge": on_edge, "validation_return": self.validation_return, "source": self.source}
        return asdict(self.choice) | found


Starts = Callable[[Key, int], Params]
"""`starts(key, tasks)`: the parameters that learning starts from in each task, leaves [tasks, ...]."""
Program = Callable[[Key, Params, np.ndarray, np.ndarray, np.ndarray, PyTree], Measured]
"""`program(keys, params, learning_rates, epsilon, temperature, env_params)` measures lifetimes from `params`, leaves
[tasks, ...], as those of keys and tasks, with each of [R] step sizes and one exploration rate and temperature, []; the
result's leaves are [R, tasks, ...]."""
Programs = Callable[[int, int], Program]
"""`programs(num_steps, n_step)`: the compiled program for what cannot be traced."""


def tune(
    key: Key,
    tasks: TaskDistribution,
    programs: Programs,
    starts: Starts,
    grid: Grid,
    on_share: Callable[[float], None] = lambda share: None,
) -> Tried:
    """Finds what returns most after the last round on validation tasks, one coordinate after another.

    Every step size is tried with each kind of target, then with each exploration rate, then with the softmax policy of
    each temperature, then with more or fewer gradient steps for as long as that helps, and with each kind of target
    again. All are tried in the same tasks with the same keys.

    Args:
      key: one key.
      tasks: the task distribution; `TUNING_TASKS` of its split `validation` are drawn.
      programs: measure lifetimes, as `make_programs` makes them.
      starts: the parameters that learning starts from.
      grid: what is tried beside `LEARNING_RATES`.
      on_share: receives after each trial the share of the largest possible number of trials.

    Returns:
      The best choice, with its mean return of an episode after the last round, in the environment's units.
    """
    task_key, start_key, lifetime_key = jax.random.split(key, 3)
    env_params = sample_tasks(task_key, tasks, "validation", TUNING_TASKS)
    params = starts(start_key, TUNING_TASKS)
    trials, most = itertools.count(1), sum(map(len, grid)) - 2

    def over_step_sizes(choice: Choice) -> Tried:
        lifetimes = adapted_by(programs, lifetime_key, choice, LEARNING_RATES, params, env_params)
        returns = np.asarray(lifetimes.returns)[..., -1].mean(axis=1)
        best = int(np.where(np.isfinite(returns), returns, -np.inf).argmax())  # a step size may diverge
        on_share(next(trials) / most)
        return Tried(replace(choice, learning_rate=LEARNING_RATES[best]), grid, float(returns[best]))

    def best_of(start: Tried, name: str, values: Iterable[float]) -> Tried:
        """The start, or the best of what differs from it in one coordinate."""
        changed = (over_step_sizes(replace(start.choice, **{name: value})) for value in values)
        return max([start, *changed], key=_by_return)

    middle = grid.middle
    best = best_of(over_step_sizes(first_choice(grid)), "n_step", grid.n_steps[1:])
    best = best_of(best, "epsilon", grid.epsilons[1:])
    start = best = best_of(best, "temperature", grid.temperatures[1:])
    for direction in (grid.num_steps[middle + 1 :], grid.num_steps[:middle][::-1]):
        for num_steps in direction if best is start else ():
            tried = over_step_sizes(replace(best.choice, num_steps=num_steps))
            if _by_return(tried) <= _by_return(best):
                break
            best = tried
    if best is not start:  # what the targets are worth depends on how long is learned from them
        best = best_of(best, "n_step", [n_step for n_step in grid.n_steps if n_step != best.choice.n_step])
    return best


def adapted_by(
    programs: Programs,
    key: Key,
    choice: Choice,
    learning_rates: tuple[float, ...],
    params: Params,
    env_params: PyTree,
    on_share: Callable[[float], None] = lambda share: None,
) -> Measured:
    """Lives as a choice says, but with each of several step sizes.

    Args:
      programs: measure lifetimes.
      key: one key, split over tasks alike for every step size.
      choice: how to adapt; its own step size plays no part.
      learning_rates: R step sizes.
      params: what is started from, leaves [tasks, ...].
      env_params: leaves [tasks, ...].
      on_share: receives after each group of tasks the share that is done.

    Returns:
      `Measured` with leaves [R, tasks, ...].
    """
    values = (learning_rates, choice.epsilon, choice.temperature)
    rates, epsilon, temperature = (np.array(value, np.float32) for value in values)
    program = programs(choice.num_steps, choice.n_step)
    keys = jax.random.split(key, jax.tree.leaves(env_params)[0].shape[0])

    def run(keys, params, env_params):
        return program(keys, params, rates, epsilon, temperature, env_params)

    return in_groups(run, (keys, params, env_params), axis=1, on_share=on_share)


def make_programs(tasks: TaskDistribution, config: FinetuneConfig) -> Programs:
    """Compiles each program on first use, and keeps it."""

    @functools.cache
    def program(num_steps: int, n_step: int) -> Program:
        learner = finetune(tasks, _with(config, {"inner.num_steps": num_steps, "agent.n_step": n_step}))
        meta = learner.adapter.init(jax.random.key(0))

        def adapt(key, params, learning_rate, epsilon, temperature, env_params):
            hyperparams = meta.hyperparams.replace(
                learning_rate=learning_rate, epsilon=epsilon, temperature=temperature
            )
            return measure_task(key, learner, meta.replace(params=params, hyperparams=hyperparams), tasks, env_params)

        in_each = jax.vmap(adapt, (0, 0, None, None, None, 0))
        over_step_sizes = jax.vmap(in_each, (None, None, 0, None, None, None))
        return jax.jit(over_step_sizes, compiler_options=compiler_options())

    return program


def fresh_starts(tasks: TaskDistribution, config: FinetuneConfig) -> Starts:
    """Parameters drawn anew for every task."""
    same = ScratchConfig(**{name: getattr(config, name) for name in ScratchConfig.__struct_fields__})
    adapter = scratch(tasks, same).adapter
    return lambda key, count: jax.vmap(lambda key: adapter.init(key).params)(jax.random.split(key, count))


def from_one_start(params: Params) -> Starts:
    """The same parameters for every task."""
    return lambda key, count: jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (count, *leaf.shape)), params)


def make_pretraining(tasks: TaskDistribution, config: FinetuneConfig, env_steps: int) -> Callable[[Key], Params]:
    """Trains the parameters that `finetune` starts from, for `env_steps` environment steps on training tasks."""
    learner = finetune(tasks, _with(config, PRETRAINING))
    updates = max(1, env_steps // _steps_of_update(learner))

    @jax.jit
    def train(key: Key) -> Params:
        init_key, update_key = jax.random.split(key)

        def update(index, state):
            task_key, step_key = jax.random.split(jax.random.fold_in(update_key, index))
            return learner.update(step_key, state, batch_of_tasks(task_key, learner, tasks))[0]

        return jax.lax.fori_loop(0, updates, update, learner.init(init_key)).meta.params

    return train


def steps_of_update(tasks: TaskDistribution, config: FinetuneConfig) -> int:
    """Environment steps of an update of that training."""
    return _steps_of_update(finetune(tasks, _with(config, PRETRAINING)))


def _steps_of_update(learner: MetaLearner) -> int:
    return learner.tasks_per_batch * learner.env_steps_per_task


def standard_config(config: AlgorithmConfig, tasks: TaskDistribution) -> FinetuneConfig:
    """What the baselines beside a learner start from: its own lifetime, agent and exploration.

    A learner without an agent stands beside the one that suits the family, with the learner's own discount.
    """
    standard = configure("finetune", tasks)
    assert isinstance(standard, FinetuneConfig)
    discount = getattr(getattr(config, "outer", None), "discount", standard.agent.discount)
    agent = getattr(config, "agent", structs.replace(standard.agent, discount=discount))
    inner = getattr(config, "inner", standard.inner)
    own = {name: getattr(inner, name) for name in GradientConfig.__struct_fields__}
    adaptation = config.adaptation.within(tasks.horizon)
    return FinetuneConfig(adaptation=adaptation, agent=agent, inner=InnerOptimizerConfig(**own))


def adapting_config(config: FinetuneConfig) -> FinetuneConfig:
    """How baselines adapt, but for what is tuned: with all data of a lifetime to learn from, and the usual means."""
    return _with(config, {**ADAPTING, "agent.replay_capacity": config.adaptation.num_adaptations})


def _with(config: FinetuneConfig, values: Mapping[str, Any]) -> FinetuneConfig:
    """With as many of the values as there are settings for."""
    known = set(paths_of(config))
    return with_values(config, {path: value for path, value in values.items() if path in known})


def _by_return(tried: Tried) -> float:
    value = tried.validation_return
    return -np.inf if value is None or not np.isfinite(value) else value


def _ends(grid: tuple) -> tuple:
    return min(grid), max(grid)

"""What every evaluation is held against: `scratch` and `finetune`, their adaptation tuned on validation tasks.

Both get the environment steps that the evaluated learner gets, in the same rounds, and all data of a lifetime to learn
from. Neither is differentiated through, so both may use Adam, a replay buffer and many gradient steps, which is how DQN
is used.
"""

import itertools
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxmeta.base import Key, MetaLearner, Params, PyTree, TaskDistribution, sample_tasks
from jaxmeta.measurement import measure
from jaxmeta.recipes import make_recipe

LEARNING_RATES = (3e-4, 1e-3, 3e-3, 1e-2, 3e-2)
EPSILONS = (0.3, 1.0)
INNER_STEPS = (100, 30, 300)
"""The first is tried with every choice of `N_STEPS`, the others with the better one."""
N_STEPS = (1, 0)
PRETRAINING = {
    "tasks_per_batch": 32,
    "envs": 16,
    "learning_rate": 1e-3,
    "epsilon": 0.2,
    "epsilon_decay": 1.0,
    "inner_steps": 4,
    "n_step": 1,
    "batch_size": 256,
}
"""How `finetune` learns all training tasks at once: many environments, so that its steps are taken in parallel."""
TUNING_TASKS = 16


@dataclass(frozen=True, kw_only=True)
class Choice:
    """How a baseline adapts."""

    learning_rate: float
    """Adam's."""
    epsilon: float
    inner_steps: int
    n_step: int

    def on_edge(self) -> bool:
        """Whether the step size or the number of steps lies at an end of its grid: a wider one might find better."""
        ends = (LEARNING_RATES[0], LEARNING_RATES[-1])
        return self.learning_rate in ends or self.inner_steps in (min(INNER_STEPS), max(INNER_STEPS))


@dataclass(frozen=True, kw_only=True)
class Baseline:
    """A baseline ready to be measured."""

    learner: MetaLearner
    meta: PyTree
    choice: Choice
    validation_return: float
    """Mean return of an episode after the last round, over the validation tasks that the choice was made on."""

    def report(self) -> dict[str, Any]:
        """What evaluation writes down about the tuning."""
        return {**asdict(self.choice), "on_edge": self.choice.on_edge(), "validation_return": self.validation_return}


def scratch(key: Key, tasks: TaskDistribution, settings: dict[str, Any], choice: Choice | None = None) -> Baseline:
    """The same agent from a random start, a fresh one in every lifetime; tuned, unless it is told how to adapt."""
    return _tune(key, "scratch", tasks, settings, None, choice)


def finetune(
    key: Key, tasks: TaskDistribution, settings: dict[str, Any], env_steps: int, choice: Choice | None = None
) -> Baseline:
    """One agent trained on the training tasks for `env_steps` environment steps, then adapted from where that led."""
    train_key, tune_key = jax.random.split(key)
    params = pretrain(train_key, tasks, settings, env_steps)
    return _tune(tune_key, "finetune", tasks, settings, params, choice)


def pretrain(key: Key, tasks: TaskDistribution, settings: dict[str, Any], env_steps: int) -> Params:
    """Trains the parameters that `finetune` starts from."""
    learner = make_recipe("finetune", tasks, **_adaptation_settings(settings) | PRETRAINING)
    updates = max(1, env_steps // (learner.tasks_per_batch * learner.env_steps_per_task))
    init_key, update_key = jax.random.split(key)

    def update(index, state):
        task_key, step_key = jax.random.split(jax.random.fold_in(update_key, index))
        env_params = sample_tasks(task_key, tasks, "train", learner.tasks_per_batch)
        return learner.update(step_key, state, env_params)[0]

    state = jax.jit(lambda state: jax.lax.fori_loop(0, updates, update, state))(learner.init(init_key))
    return state.meta.params


def _adaptation_settings(settings: dict[str, Any]) -> dict[str, Any]:
    """How a baseline adapts, but for what is tuned: the learner's lifetime and exploration, and DQN's usual means."""
    return settings | {
        "inner_optimizer": "adam",
        "replay_rounds": settings["rounds"],
        "batch_size": 64,
        "tasks_per_group": 0,
        "temperature": 0.0,
        "target_step_size": 0.1,
    }


def _tune(
    key: Key,
    name: str,
    tasks: TaskDistribution,
    settings: dict[str, Any],
    params: Params | None,
    choice: Choice | None,
) -> Baseline:
    """Tries the grid, or the choice given, on validation tasks; keeps what returns most after the last round."""
    task_key, life_key, init_key = jax.random.split(key, 3)
    env_params = sample_tasks(task_key, tasks, "validation", TUNING_TASKS)

    def best_of(inner_steps: int, n_step: int, pairs: Sequence[tuple[float, float]]) -> Baseline:
        changes = {"inner_steps": inner_steps, "n_step": n_step}
        learner = make_recipe(name, tasks, **_adaptation_settings(settings) | changes)
        meta = learner.adapter.init(init_key)
        meta = meta if params is None else meta.replace(params=params)

        def last_return(learning_rate, epsilon):
            start = _with_hypers(meta, learning_rate, epsilon)
            return jnp.mean(measure(life_key, learner, start, tasks, env_params).returns[:, -1])

        returns = np.asarray(jax.jit(jax.vmap(last_return))(*np.array(pairs, np.float32).T))
        rate, epsilon = pairs[int(returns.argmax())]
        return Baseline(
            learner=learner,
            meta=_with_hypers(meta, rate, epsilon),
            choice=Choice(learning_rate=rate, epsilon=epsilon, inner_steps=inner_steps, n_step=n_step),
            validation_return=float(returns.max()),
        )

    def by_return(baseline: Baseline) -> float:
        return baseline.validation_return

    if choice is not None:
        return best_of(choice.inner_steps, choice.n_step, [(choice.learning_rate, choice.epsilon)])
    pairs = list(itertools.product(LEARNING_RATES, EPSILONS))
    first = max((best_of(INNER_STEPS[0], n_step, pairs) for n_step in N_STEPS), key=by_return)
    others = (best_of(inner_steps, first.choice.n_step, pairs) for inner_steps in INNER_STEPS[1:])
    return max(first, *others, key=by_return)


def _with_hypers(meta: PyTree, learning_rate, epsilon) -> PyTree:
    hypers = meta.hypers.replace(
        learning_rate=jnp.asarray(learning_rate, jnp.float32), epsilon=jnp.asarray(epsilon, jnp.float32)
    )
    return meta.replace(hypers=hypers)

"""What every evaluation is held against: `scratch` and `finetune`, their adaptation tuned on validation tasks.

Both get the environment steps that the evaluated learner gets, in the same rounds, and all data of a lifetime to learn from.
Neither is differentiated through, so both may use Adam, a replay buffer and many gradient steps, which is how DQN is used.
"""

import itertools
from dataclasses import asdict, dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxmeta.base import Key, MetaLearner, PyTree, TaskDistribution
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
        """Whether the step size or the number of steps lies at an end of its grid, where a wider one might find better."""
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


def scratch(key: Key, tasks: TaskDistribution, settings: dict[str, Any]) -> Baseline:
    """The same agent from a random start, a fresh one in every lifetime."""
    init_key, tune_key = jax.random.split(key)
    meta = make_recipe("scratch", tasks, **_settings(settings)).init(init_key).meta
    return _tune(tune_key, "scratch", tasks, settings, meta)


def finetune(key: Key, tasks: TaskDistribution, settings: dict[str, Any], env_steps: int) -> Baseline:
    """One agent trained on the training tasks for `env_steps` environment steps, then adapted from where that led."""
    train_key, tune_key = jax.random.split(key)
    return _tune(tune_key, "finetune", tasks, settings, pretrain(train_key, tasks, settings, env_steps))


def pretrain(key: Key, tasks: TaskDistribution, settings: dict[str, Any], env_steps: int) -> PyTree:
    """Trains the start of `finetune`; returns its meta."""
    learner = make_recipe("finetune", tasks, **_settings(settings) | PRETRAINING)
    updates = max(1, env_steps // (learner.tasks_per_batch * learner.env_steps_per_task))
    init_key, update_key = jax.random.split(key)

    def update(index, state):
        task_key, step_key = jax.random.split(jax.random.fold_in(update_key, index))
        keys = jax.random.split(task_key, learner.tasks_per_batch)
        env_params = jax.vmap(lambda key: tasks.sample(key, "train"))(keys)
        return learner.update(step_key, state, env_params)[0]

    state = jax.jit(lambda state: jax.lax.fori_loop(0, updates, update, state))(learner.init(init_key))
    return state.meta


def _settings(settings: dict[str, Any]) -> dict[str, Any]:
    return settings | {
        "inner_optimizer": "adam",
        "replay_rounds": settings["rounds"],
        "batch_size": 64,
        "tasks_per_group": 0,
        "temperature": 0.0,
        "target_step_size": 0.1,
    }


def _tune(key: Key, name: str, tasks: TaskDistribution, settings: dict[str, Any], meta: PyTree) -> Baseline:
    """Tries the grid on validation tasks and keeps what has the highest return after the last round."""
    task_key, life_key = jax.random.split(key)
    env_params = jax.vmap(lambda key: tasks.sample(key, "validation"))(jax.random.split(task_key, TUNING_TASKS))
    traced = np.array(list(itertools.product(LEARNING_RATES, EPSILONS)), np.float32)

    def best_of(inner_steps: int, n_step: int) -> Baseline:
        learner = make_recipe(name, tasks, **_settings(settings) | {"inner_steps": inner_steps, "n_step": n_step})

        def last_return(learning_rate, epsilon):
            start = _with_hypers(meta, learning_rate, epsilon)
            return jnp.mean(measure(life_key, learner, start, tasks, env_params).returns[:, -1])

        returns = np.asarray(jax.jit(jax.vmap(last_return))(traced[:, 0], traced[:, 1]))
        rate, epsilon = list(itertools.product(LEARNING_RATES, EPSILONS))[returns.argmax()]
        choice = Choice(learning_rate=rate, epsilon=epsilon, inner_steps=inner_steps, n_step=n_step)
        return Baseline(
            learner=learner,
            meta=_with_hypers(meta, rate, epsilon),
            choice=choice,
            validation_return=float(returns.max()),
        )

    def by_return(baseline: Baseline) -> float:
        return baseline.validation_return

    first = max((best_of(INNER_STEPS[0], n_step) for n_step in N_STEPS), key=by_return)
    return max(first, *(best_of(inner_steps, first.choice.n_step) for inner_steps in INNER_STEPS[1:]), key=by_return)


def _with_hypers(meta: PyTree, learning_rate, epsilon) -> PyTree:
    hypers = meta.hypers.replace(
        learning_rate=jnp.asarray(learning_rate, jnp.float32),
        epsilon=jnp.asarray(epsilon, jnp.float32),
        temperature=jnp.zeros(()),
    )
    return meta.replace(hypers=hypers)

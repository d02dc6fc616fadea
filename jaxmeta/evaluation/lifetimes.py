"""A lifetime in one task, recorded step by step for `jaxmeta show`: the environment's states, actions and rewards.

An episode is recorded after each round, as evaluation plays it: in a fresh environment, by `eval_policy`. The rounds
themselves, from which the learner adapts, are recorded as the experience before each episode.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxmeta.core.rollout import Round, Runner
from jaxmeta.core.scenes import Episode, Scene, Steps
from jaxmeta.core.types import Adapter, Environment, Key, LearnerState, MetaLearner, PyTree, Rollout, TaskDistribution


class Recorded(NamedTuple):
    """An environment whose observations are pairs of the observation and the state."""

    env: Environment

    def reset(self, key: Key, params: PyTree):
        """As of the environment."""
        observation, state = self.env.reset(key, params)
        return (observation, state), state

    def step(self, key: Key, state: PyTree, action: jax.Array, params: PyTree):
        """As of the environment; the state beside the final observation is the one before the step."""
        observation, after, reward, terminated, truncated, info = self.env.step(key, state, action, params)
        info = {**info, "final_observation": (info["final_observation"], state)}
        return (observation, after), after, reward, terminated, truncated, info

    def action_space(self, params: PyTree):
        """As of the environment."""
        return self.env.action_space(params)

    def observation_space(self, params: PyTree):
        """As of the environment."""
        return self.env.observation_space(params)


def record(
    key: Key, learner: MetaLearner, meta: PyTree, tasks: TaskDistribution, env_params: PyTree, scene: Scene
) -> list[Episode]:
    """Runs a lifetime in one task.

    Args:
      key: one key.
      learner: what adapts.
      meta: its meta-parameters.
      tasks: the family.
      env_params: the task, leaves without a batch axis.
      scene: how the task is drawn: which action values it needs, and whether a lifetime is one sequence.

    Returns:
      An episode before adaptation and one after each round; where `scene.lifetime`, the lifetime in its first
      environment as the only one.
    """
    runner = Runner(Recorded(tasks.env), _on_recorded(learner.adapter))
    lifetime = learner.lifetime
    task_key, reset_key, first_key, adapt_key = jax.random.split(key, 4)

    def run(meta: PyTree, env_params: PyTree):
        task = learner.task(task_key, env_params)

        def play(key: Key, learner_state: LearnerState):
            episode = runner.evaluate_policy(key, meta, task, learner_state, 1, tasks.horizon)
            return episode, _action_values(learner.adapter, meta, learner_state, scene)

        def observe(key: Key, round_: Round):
            episode, values = play(key, round_.after)
            return round_.rollout, episode, values

        learner_state = runner.reset(reset_key, meta, task, lifetime.num_envs)
        before = play(first_key, learner_state)
        return before, runner.adapt_for(adapt_key, meta, task, learner_state, lifetime, observe)[1]

    before, (rollouts, played, values_after) = jax.device_get(jax.jit(run)(meta, env_params))
    if scene.lifetime:
        return [_lifetime_of(rollouts)]
    episodes = [_episode(*before)]
    for index in range(lifetime.num_adaptations):
        earlier = jax.tree.map(lambda leaf, index=index: leaf[: index + 1], rollouts)
        episode, values = jax.tree.map(lambda leaf, index=index: leaf[index], (played, values_after))
        episodes.append(_episode(episode, values, earlier))
    return episodes


def _on_recorded(adapter: Adapter) -> Adapter:
    """The adapter with observations taken out of the pairs."""

    def act(noise, meta, fast, memory, percept):
        return adapter.act(noise, meta, fast, memory, percept._replace(observation=percept.observation[0]))

    def eval_policy(noise, meta, fast, memory, percept):
        return adapter.eval_policy(noise, meta, fast, memory, percept._replace(observation=percept.observation[0]))

    def adapt(key, meta, fast, rollout):
        percept = rollout.percept._replace(observation=rollout.percept.observation[0])
        return adapter.adapt(
            key, meta, fast, rollout._replace(percept=percept, next_observation=rollout.next_observation[0])
        )

    return adapter._replace(act=act, eval_policy=eval_policy, adapt=adapt)


def _action_values(adapter: Adapter, meta: PyTree, learner_state: LearnerState, scene: Scene) -> jax.Array | None:
    """The highest action value in each of the scene's observations, [N] float32, of a learner without memory."""
    if scene.observations is None or learner_state.memory is not None:
        return None
    percept = jax.tree.map(lambda leaf: leaf[0], learner_state.percept)

    def value(observation: jax.Array):
        noise = adapter.noise(jax.random.key(0))
        extras = adapter.eval_policy(noise, meta, learner_state.fast, None, percept._replace(observation=observation))[
            2
        ]
        return jnp.max(extras["q"]) if "q" in extras else None

    return jax.vmap(value)(jnp.asarray(scene.observations))


def _episode(rollout: Rollout, values: np.ndarray | None, earlier: Rollout | None = None) -> Episode:
    """The first episode of a rollout of one environment."""
    ends = np.flatnonzero(rollout.done[:, 0])
    count = int(ends[0]) + 1 if len(ends) else len(rollout.reward)
    steps = jax.tree.map(lambda leaf: leaf[:count, 0], _steps(rollout))
    if earlier is None:
        return Episode(steps, values)
    return Episode(steps, values, jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[3:]), _steps(earlier)))


def _lifetime_of(rollouts: Rollout) -> Episode:
    """All steps in the first environment, round after round."""
    return Episode(jax.tree.map(lambda leaf: leaf[:, :, 0].reshape(-1, *leaf.shape[3:]), _steps(rollouts)))


def _steps(rollout: Rollout) -> Steps:
    """The steps of a recorded rollout, with its axes."""
    return Steps(rollout.percept.observation[1], rollout.action, rollout.reward, rollout.next_observation[0])

"""Learning in context: a policy whose memory does the learning, trained by PPO on whole trials.

- `rl2` (Duan et al., 2016; Wang et al., 2016) has a recurrent memory;
- `mann` (Santoro et al., 2016) reads a memory by content, and writes where least was used;
- `snail` (after Mishra et al., 2018) attends to all steps of a trial.
"""

from collections.abc import Callable
from typing import ClassVar

from jaxmeta.algorithms.families import Families
from jaxmeta.core.config import AdaptationConfig, AlgorithmConfig, Count
from jaxmeta.core.errors import require
from jaxmeta.core.rollout import Runner
from jaxmeta.core.spec import hidden, spec_of
from jaxmeta.core.types import MetaLearner, TaskDistribution
from jaxmeta.inner.in_context import in_context
from jaxmeta.nets.memories import (
    Attentive,
    AttentiveConfig,
    ContentAddressed,
    ContentAddressedConfig,
    Memory,
    OfPictures,
    Recurrent,
    RecurrentConfig,
)
from jaxmeta.nets.pictures import picture_of
from jaxmeta.outer.ppo import PPOConfig, policy_optimisation
from jaxmeta.rl.distributions import of_actions

TRIALS: Families = {
    "bandit": {"outer.discount": 1.0, "outer.tasks_per_batch": 1024},
    "gaussian_bandit": {"outer.discount": 1.0, "outer.tasks_per_batch": 1024},
    "cartpole": {"adaptation.num_adaptations": 2},
    "grid_navi": {"adaptation.num_adaptations": 4, "outer.discount": 0.97, "outer.entropy": 0.03},
    "maze": {"adaptation.num_adaptations": 2, "outer.entropy": 0.03},
    "point_navigation": {"outer.entropy": 0.0},
    "recommender": {"adaptation.num_adaptations": 4},
    "tabular_mdp": {
        "memory.width": 128,
        "outer.gae_lambda": 0.3,
        "outer.learning_rate": 1e-2,
        "outer.entropy": 0.1,
        "outer.final_entropy_fraction": 0.1,
        "meta_steps": 4000,
    },
}
"""Settings by task family, found on validation tasks; docs/experiments says how."""


class InContextConfig(AlgorithmConfig, frozen=True, kw_only=True):
    """What all have whose memory does the learning."""

    adaptation: AdaptationConfig = AdaptationConfig(num_envs=1)
    outer: PPOConfig = PPOConfig(learning_rate=3e-3, final_learning_rate_fraction=0.0)
    meta_steps: Count = 500

    families: ClassVar[Families] = TRIALS
    policy_families: ClassVar[Families] = TRIALS


class RL2Config(InContextConfig, frozen=True, kw_only=True):
    """Settings of RL^2."""

    memory: RecurrentConfig = RecurrentConfig()


class MANNConfig(InContextConfig, frozen=True, kw_only=True):
    """Settings of MANN."""

    memory: ContentAddressedConfig = ContentAddressedConfig()


class SNAILConfig(InContextConfig, frozen=True, kw_only=True):
    """Settings of SNAIL. What is too fast for attention suits a GRU."""

    memory: AttentiveConfig = AttentiveConfig()
    outer: PPOConfig = PPOConfig(learning_rate=1e-3, final_learning_rate_fraction=0.0)


def rl2(tasks: TaskDistribution, config: RL2Config = RL2Config()) -> MetaLearner:
    """RL^2: a recurrent policy whose memory learns, trained by PPO on whole trials."""

    def network(outputs: int, steps: int) -> Memory:
        memory = config.memory
        return Recurrent(outputs, memory.cell, memory.width, memory.readout, memory.span or steps)

    return trained_in_context(tasks, config, network)


def mann(tasks: TaskDistribution, config: MANNConfig = MANNConfig()) -> MetaLearner:
    """MANN: the same with a memory that is read by content and written where least was used."""

    def network(outputs: int, steps: int) -> Memory:
        memory = config.memory
        span = memory.span or steps
        return ContentAddressed(outputs, memory.width, memory.slots, memory.word, memory.heads, span)

    return trained_in_context(tasks, config, network)


def snail(tasks: TaskDistribution, config: SNAILConfig = SNAILConfig()) -> MetaLearner:
    """The same with causal attention over all steps of a trial, after SNAIL."""
    lifetime = config.adaptation.within(tasks.horizon)

    def network(outputs: int, steps: int) -> Memory:
        memory = config.memory
        context = memory.context or steps
        require(context >= steps, "context", f"be at least {steps}, the steps of a trial", context)
        # An evaluation plays one more episode after a lifetime.
        evaluated = (lifetime.num_adaptations + 1) * lifetime.rollout_length
        return Attentive(outputs, memory.width, memory.layers, memory.heads, max(context, evaluated))

    return trained_in_context(tasks, config, network)


def trained_in_context(
    tasks: TaskDistribution, config: InContextConfig, network_of: Callable[[int, int], Memory]
) -> MetaLearner:
    """Trains a policy with a memory on whole trials.

    Args:
      tasks: what it is trained on.
      config: lifetime and outer loop.
      network_of: `network_of(outputs, steps)`, given how many numbers the policy needs and the steps of a trial.
    """
    spec, outer = spec_of(tasks), config.outer
    lifetime, actions = config.adaptation.within(tasks.horizon), of_actions(spec)
    trial = outer.trial(lifetime)
    network = network_of(actions.size, trial.num_adaptations * trial.rollout_length)
    if picture := picture_of(spec):
        network = OfPictures(network, picture)
    learner = in_context(network, spec, actions)
    init, update = policy_optimisation(
        Runner(tasks.env, learner), actions, trial, outer, config.meta_steps, tasks.horizon
    )
    return MetaLearner(
        init=init,
        update=update,
        task=hidden,
        adapter=learner,
        meta=lambda state: state.meta,
        lifetime=lifetime,
        tasks_per_batch=outer.tasks_per_batch,
        env_steps_per_task=trial.env_steps,
        config=config,
        name=config.algorithm,
    )

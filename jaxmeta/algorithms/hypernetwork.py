"""A hypernetwork reads the transitions of a task and puts out its Q-network.

References: Ha, Dai and Le (2017), hypernetworks; Beck et al. (2022), hypernetworks in meta-reinforcement learning.
"""

from typing import ClassVar, Literal

from jaxmeta.algorithms.families import ACTION_VALUES, Families, over
from jaxmeta.algorithms.maml import MAMLConfig, inner_loop, meta_trained
from jaxmeta.core.spec import spec_of
from jaxmeta.core.types import MetaLearner, TaskDistribution
from jaxmeta.inner import generated
from jaxmeta.inner import hypernetwork as source
from jaxmeta.nets.encoders import EncoderConfig, SetEncoder
from jaxmeta.nets.generators import GeneratorConfig, make_generator
from jaxmeta.rl import DQNConfig, TabularQConfig, make_agent


class HypernetworkConfig(MAMLConfig, frozen=True, kw_only=True):
    """Settings of the hypernetwork."""

    agent: DQNConfig | TabularQConfig = DQNConfig()
    encoder: EncoderConfig = EncoderConfig()
    generator: GeneratorConfig = GeneratorConfig()
    regenerate: Literal["every", "first"] = "every"
    """After which rollouts parameters are generated anew: `every`, or the `first` alone."""
    fine_tune: bool = False
    """Let gradient steps follow each time, from what was generated."""

    families: ClassVar[Families] = over(
        ACTION_VALUES,
        {
            "recommender": {
                "generator.form": "whole",
                "objective.loss": "td",
                "objective.scored": "before_and_every",
                "objective.lifetimes_per_task": 1,
                "outer.tasks_per_batch": 40,
                "outer.final_learning_rate_fraction": 0.0,
                "meta_steps": 1500,
            },
        },
    )


def hypernetwork(tasks: TaskDistribution, config: HypernetworkConfig = HypernetworkConfig()) -> MetaLearner:
    """A hypernetwork: reads the transitions of a task and puts out its Q-network."""
    agent = make_agent(spec_of(tasks), config.agent)
    encoder = SetEncoder(config.encoder.width, config.encoder.pooling)
    generator = source.hypernetwork(agent.spec, encoder, make_generator(config.generator))
    learner = inner_loop(tasks, agent, config, target_network=True)
    return meta_trained(tasks, generated(learner, generator, config.regenerate, config.fine_tune), agent, config)

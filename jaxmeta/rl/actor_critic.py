"""A policy and its baseline, over discrete or continuous actions: what MAML over policy gradients adapts.

A gradient that is estimated from sampled data is right on average, but its derivative need not be: the data would have
been others under other parameters. The `SURROGATES` have the same gradient where the data was collected
and differ in their second derivative, which is what a meta-gradient goes through.
"""

from typing import Literal, cast

import jax
import jax.numpy as jnp

from jaxmeta.core.config import AgentConfig, Count, Fraction, NonNegative, Positive
from jaxmeta.core.types import Agent, Hyperparams, Key, Params, Percept, Rollout, Spec
from jaxmeta.nets.networks import PolicyNetwork, ValueNetwork, features_of, nothing_seen
from jaxmeta.nets.pictures import picture_of
from jaxmeta.rl import losses
from jaxmeta.rl.advantages import generalised_advantage, linear_baseline, normalised
from jaxmeta.rl.distributions import of_actions

SURROGATES = {"naive": losses.naive_surrogate, "dice": losses.dice_surrogate, "lvc": losses.lvc_surrogate}


class ActorCriticConfig(AgentConfig, frozen=True, kw_only=True, tag="actor_critic"):
    """Settings of a policy and its baseline."""

    hidden: tuple[Count, ...] = (64, 64)
    """Width of each hidden layer."""
    surrogate: Literal["naive", "dice", "lvc"] = "naive"
    """What is descended on, which decides what a meta-gradient sees of how parameters changed the data."""
    baseline: Literal["linear", "value"] = "linear"
    """What returns are held against: a function `linear` in observation and time, fitted to each rollout, or a learned
    `value`."""
    normalised: bool = True
    """Scale advantages to mean 0 and variance 1 in each rollout."""
    inner_entropy: NonNegative = 0.0
    """Weight of the entropy in the agent's loss."""
    initial_scale: Positive = 1.0
    """Standard deviation of continuous actions at first, in units of half the width of their range."""
    gae_lambda: Fraction = 0.95
    """Weight of later surprises in an advantage."""
    value_weight: NonNegative = 0.5
    """Weight of the learned value's squared error."""


def actor_critic(spec: Spec, config: ActorCriticConfig) -> Agent:
    """Policy gradients with generalised advantages, and a linear or a learned baseline.

    The loss is the mean over a rollout of minus the surrogate, minus `inner_entropy` times the entropy, plus, for a
    learned value, `value_weight` times half its squared error.

    Args:
      spec: shapes of observations and actions.
      config: of the networks, whose hidden layers are of tanh, of surrogate and baseline.

    Returns:
      An on-policy `Agent`; `extras` holds `logits`, the numbers of `distributions.of_actions`.

    Reference: Williams (1992); Sutton et al. (2000); Schulman et al. (2016) for the advantages.
    """
    actions = of_actions(spec)
    scales = actions.size // 2 if spec.num_actions is None else 0
    picture = picture_of(spec)
    network = PolicyNetwork(actions.size - scales, config.hidden, scales, config.initial_scale, picture)
    value_network = ValueNetwork(config.hidden, picture)
    learned_value = config.baseline == "value"

    def over_rollout(function):
        return jax.vmap(jax.vmap(function))

    def numbers_of(params: Params, observation) -> jax.Array:
        return cast(jax.Array, network.apply(params["policy"], features_of(spec, observation)))

    def value_of(params: Params, observation) -> jax.Array:
        return cast(jax.Array, value_network.apply(params["value"], features_of(spec, observation)))

    def init(key: Key) -> Params:
        policy_key, value_key = jax.random.split(key)
        features = features_of(spec, nothing_seen(spec))
        params = {"policy": network.init(policy_key, features)}
        return params | {"value": value_network.init(value_key, features)} if learned_value else params

    def act(noise: jax.Array, params: Params, percept: Percept, hyperparams: Hyperparams):
        del hyperparams
        numbers = numbers_of(params, percept.observation)
        return actions.draw(noise, numbers), {"logits": numbers}

    def judge(
        params: Params, target_params: Params, rollout: Rollout, discount: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        """Advantages, which depend on `target_params` alone, and the loss of what is expected."""
        ended = rollout.done
        observation, first = rollout.percept.observation, rollout.percept.first
        if learned_value:
            value = over_rollout(lambda seen: value_of(target_params, seen))(observation)
            next_value = over_rollout(lambda seen: value_of(target_params, seen))(rollout.next_observation)
        else:  # fitted to what was earned up to the end of episode or rollout, so nothing is worth anything there
            returns = jax.vmap(losses.returns_to_go, 1, 1)(rollout.reward, discount * ~ended)
            value = linear_baseline(over_rollout(lambda seen: features_of(spec, seen))(observation), first, returns)
            next_value = jnp.concatenate([value[1:], jnp.zeros_like(value[:1])]) * ~ended
        advantage = jax.vmap(generalised_advantage, (1, 1, 1, 1, 1, None, None), 1)(
            rollout.reward, rollout.terminated, ended, value, next_value, discount, config.gae_lambda
        )
        error = jnp.zeros(())
        if learned_value:
            expected = over_rollout(lambda seen: value_of(params, seen))(observation)
            error = 0.5 * jnp.mean((expected - value - advantage) ** 2)
        if config.normalised:
            advantage = normalised(advantage)
        return advantage, error

    def loss(params: Params, target_params: Params, batch: Rollout, hyperparams: Hyperparams):
        advantage, value_loss = judge(params, target_params, batch, hyperparams.discount)
        numbers = over_rollout(lambda seen: numbers_of(params, seen))(batch.percept.observation)
        log_ratio = actions.log_prob(numbers, batch.action) - actions.log_prob(batch.extras["logits"], batch.action)
        surrogate = jax.vmap(SURROGATES[config.surrogate], 1, 1)(log_ratio, batch.percept.first, advantage)
        entropy = jnp.mean(actions.entropy(numbers))
        value = config.value_weight * value_loss - jnp.mean(surrogate) - config.inner_entropy * entropy
        return value, {"inner_entropy": entropy, "value_loss": value_loss}

    return Agent(init, act, act, loss, spec, config, on_policy=True, noise=actions.noise)

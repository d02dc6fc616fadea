"""Q-learning, with a network (`dqn`) or a table (`tabular_q`): one agent, two function classes."""

from typing import Annotated

import flax.linen as nn
import jax
import jax.numpy as jnp
from msgspec import Meta

from jaxmeta.core.config import TRACED, AgentConfig, Count, Fraction, Natural, NonNegative
from jaxmeta.core.errors import UsageError, Words
from jaxmeta.core.types import Agent, Experience, Hyperparams, Key, Params, Percept, Spec
from jaxmeta.nets.networks import WHOLE, QNetwork, QTable, features_of, nothing_seen
from jaxmeta.nets.pictures import picture_of
from jaxmeta.rl import losses
from jaxmeta.rl.distributions import of_actions


class QLearningConfig(AgentConfig, frozen=True, kw_only=True):
    """Settings of Q-learning, whatever holds the action values."""

    double: bool = True
    """The newest parameters choose the action whose target value is bootstrapped (van Hasselt et al., 2016)."""
    huber: NonNegative = 0.0
    """Error beyond which the loss grows linearly; 0 is the squared loss."""
    n_step: Natural = 0
    """Rewards summed before a value is bootstrapped; 0 sums to the end of the episode or the rollout (Monte Carlo)."""
    mixed_targets: bool = False
    """Mix targets of one step with those of `n_step`, by `mixing`."""
    mixing: Annotated[Fraction, TRACED] = 0.5
    """Weight of targets of `n_step` steps beside those of one, where both are mixed."""
    batch_size: Natural = 0
    """Transitions of a gradient step, drawn from the replay buffer; 0 uses the whole buffer."""
    replay_capacity: Count = 1
    """Rollouts that the replay buffer holds."""
    epsilon: Annotated[Fraction, TRACED] = 1.0
    """Probability of an exploring action."""
    epsilon_decay: Annotated[Fraction, TRACED] = 1.0
    """Factor of `epsilon` after each adaptation of a lifetime."""
    stickiness: Annotated[float, Meta(ge=0, lt=1, extra={"traced": True})] = 0.0
    """Probability that an exploring action repeats the one before it."""
    temperature: Annotated[NonNegative, TRACED] = 0.5
    """Of the softmax policy over action values, in the values' units; 0 is the greedy policy."""


class DQNConfig(QLearningConfig, frozen=True, kw_only=True, tag="dqn"):
    """Settings of deep Q-learning."""

    hidden: tuple[Count, ...] = (64, 64)
    """Width of each hidden layer."""
    dueling: bool = False
    """Value and advantage heads (Wang et al., 2016)."""
    structure: bool = False
    """Hidden layers of which only a share takes part, which `hyper_policy` sets once for a lifetime."""


class TabularQConfig(QLearningConfig, frozen=True, kw_only=True, tag="tabular_q"):
    """Settings of tabular Q-learning, over one-hot or discrete observations."""


def dqn(spec: Spec, config: DQNConfig) -> Agent:
    """Deep Q-learning: double, dueling and Huber as configured, on the n-step targets that it is given.

    Args:
      spec: shapes of observations and actions.
      config: of the network, and of `q_learner`.

    Returns:
      The `Agent` of `q_learner` over a `QNetwork`.

    Raises:
      UsageError: actions are continuous.

    Reference: Mnih et al. (2015); Hessel et al. (2018).
    """
    network = QNetwork(_num_actions(spec, "dqn"), config.hidden, config.dueling, picture_of(spec))
    return q_learner(spec, network, config, len(config.hidden) if config.structure else 0)


def tabular_q(spec: Spec, config: TabularQConfig) -> Agent:
    """Tabular Q-learning over discrete or one-hot observations.

    One inner SGD step of size `rate` on one transition is the rule Q(s, a) += rate * td_error. On observations that are
    not one-hot this is Q-learning with linear features.

    Args:
      spec: shapes of observations and actions.
      config: as in `q_learner`.

    Returns:
      The `Agent` of `q_learner` over a `QTable`, which starts at zero.

    Raises:
      UsageError: actions are continuous.

    Reference: Watkins and Dayan (1992).
    """
    return q_learner(spec, QTable(_num_actions(spec, "tabular_q")), config)


def _num_actions(spec: Spec, agent: str) -> int:
    if spec.num_actions is None:
        rule = f"suit the action space: {agent!r} needs discrete actions"
        raise UsageError("agent", rule, Words("continuous ones"))
    return spec.num_actions


def q_learner(spec: Spec, network: nn.Module, config: QLearningConfig, structured_layers: int = 0) -> Agent:
    """Q-learning with any network from a flat observation [D], its leaves side by side, to action values [A].

    The loss is the mean over what a batch holds of half the squared, or the Huber, error of

        r + discount * q_slow(s')[argmax q(s')] - q(s)[a],

    where without `config.double` the argmax is that of q_slow.

    Args:
      spec: shapes of observations and discrete actions.
      network: maps features [D] float32 to action values [A] float32; with structured layers it takes a structure too.
      config: `double` and `huber` of the loss, and how it learns from experience.
      structured_layers: hidden layers of which only a share takes part; 0: none.

    Returns:
      An `Agent` whose parameters are the `network`'s, and as `exploration` the logits, [A] float32, of the distribution
      that exploring actions are drawn from. These start uniform; no value loss depends on them, so that learning within
      a task leaves them alone, and meta-learning may shape them. With structured layers there is also `structure`, how
      much of each takes part, [layers] float32, at first all. `extras` holds `q` and `logits`, [A] float32 each.
    """
    actions = of_actions(spec)

    def action_values(params: Params, observation):
        structure = (params["structure"],) if structured_layers else ()
        return network.apply(params["network"], features_of(spec, observation), *structure)

    def draw(noise: jax.Array, q, logits: jax.Array):
        return actions.draw(noise, logits), {"q": q, "logits": logits}

    def init(key: Key) -> Params:
        features = features_of(spec, nothing_seen(spec))
        params = {"network": network.init(key, features), "exploration": jnp.zeros(actions.size)}
        return params | {"structure": jnp.full(structured_layers, WHOLE)} if structured_layers else params

    def eval_policy(noise: jax.Array, params: Params, percept: Percept, hyperparams: Hyperparams):
        q = action_values(params, percept.observation)
        return draw(noise, q, losses.log_softmax_or_greedy(q, hyperparams.temperature))

    def act(noise: jax.Array, params: Params, percept: Percept, hyperparams: Hyperparams):
        q = action_values(params, percept.observation)
        stickiness = hyperparams.stickiness * ~percept.first
        exploring = losses.log_sticky_softmax(params["exploration"], percept.previous_action, stickiness)
        # What exploration is credited with goes to its own logits: through the values it drowned all else in noise.
        exploiting = jax.lax.stop_gradient(losses.log_softmax_or_greedy(q, hyperparams.temperature))
        logits = jnp.logaddexp(jnp.log1p(-hyperparams.epsilon) + exploiting, jnp.log(hyperparams.epsilon) + exploring)
        return draw(noise, q, logits)

    def loss(params: Params, target_params: Params, batch: Experience, hyperparams: Hyperparams):
        del hyperparams
        q = jax.vmap(action_values, (None, 0))
        q_t_value = q(target_params, batch.next_observation)
        q_t_selector = q(params, batch.next_observation) if config.double else q_t_value
        errors = jax.vmap(losses.td_error)(
            q(params, batch.observation), batch.action, batch.reward, batch.discount, q_t_selector, q_t_value
        )
        weight = batch.weight / jnp.maximum(jnp.sum(batch.weight), 1.0)
        value = jnp.sum(weight * losses.half_squared_or_huber(errors, config.huber))
        return value, {"td_error": jnp.sum(weight * jnp.abs(errors))}

    return Agent(init, act, eval_policy, loss, spec, config, noise=actions.noise)

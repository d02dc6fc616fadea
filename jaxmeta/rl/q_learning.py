"""Q-learning, with a network (`dqn`) or a table (`tabular_q`): one agent, two function classes."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxmeta.core.config import AgentConfig
from jaxmeta.core.errors import UsageError, Words
from jaxmeta.core.types import Agent, Experience, Hypers, Key, Params, Percept, Spec
from jaxmeta.nets.networks import WHOLE, QNetwork, QTable, features_of, nothing_seen
from jaxmeta.rl import losses
from jaxmeta.rl.distributions import of_actions


def dqn(spec: Spec, config: AgentConfig) -> Agent:
    """Deep Q-learning: double, dueling and Huber as configured, on the n-step targets that it is given.

    Args:
      spec: shapes of observations and actions.
      config: `hidden` and `dueling` of the network; the rest as in `q_learner`.

    Returns:
      The `Agent` of `q_learner` over a `QNetwork`.

    Raises:
      UsageError: actions are continuous.

    Reference: Mnih et al. (2015); Hessel et al. (2018).
    """
    network = QNetwork(_num_actions(spec, "dqn"), config.hidden, config.dueling)
    return q_learner(spec, network, config)


def tabular_q(spec: Spec, config: AgentConfig) -> Agent:
    """Tabular Q-learning over discrete or one-hot observations.

    One inner SGD step of size `rate` on one transition is the rule Q(s, a) += rate * td_error. On observations that are
    not one-hot this is Q-learning with linear features.

    Args:
      spec: shapes of observations and actions.
      config: as in `q_learner`, without `structure`; `hidden` and `dueling` play no part.

    Returns:
      The `Agent` of `q_learner` over a `QTable`, which starts at zero.

    Raises:
      UsageError: actions are continuous, or `config.structure` asks for hidden layers.

    Reference: Watkins and Dayan (1992).
    """
    if config.structure:
        raise UsageError("structure", "be false for agent 'tabular_q', which has no hidden layers", True)
    return q_learner(spec, QTable(_num_actions(spec, "tabular_q")), config)


def _num_actions(spec: Spec, agent: str) -> int:
    if spec.num_actions is None:
        rule = f"suit the action space: {agent!r} needs discrete actions"
        raise UsageError("agent", rule, Words("continuous ones"))
    return spec.num_actions


def q_learner(spec: Spec, network: nn.Module, config: AgentConfig) -> Agent:
    """Q-learning with any network from a flat observation [D], its leaves side by side, to action values [A].

    The loss is the mean over what a batch holds of half the squared, or the Huber, error of

        r + discount * q_slow(s')[argmax q(s')] - q(s)[a],

    where without `config.double` the argmax is that of q_slow.

    Args:
      spec: shapes of observations and discrete actions.
      network: maps features [D] float32 to action values [A] float32; with `config.structure` it takes that too.
      config: `double`, `huber` and `structure`; with the latter as many layers as `hidden` has.

    Returns:
      An `Agent` whose parameters are the `network`'s, and as `exploration` the logits, [A] float32, of the distribution
      that exploring actions are drawn from. These start uniform; no value loss depends on them, so that learning within
      a task leaves them alone, and meta-learning may shape them. With `config.structure` there is also `structure`, how
      much of each hidden layer takes part, [layers] float32, at first all. `extras` holds `q` and `logits`, [A] float32
      each.
    """
    actions = of_actions(spec)

    def action_values(params: Params, observation):
        structure = (params["structure"],) if config.structure else ()
        return network.apply(params["network"], features_of(spec, observation), *structure)

    def draw(noise: jax.Array, q, logits: jax.Array):
        return actions.draw(noise, logits), {"q": q, "logits": logits}

    def init(key: Key) -> Params:
        features = features_of(spec, nothing_seen(spec))
        params = {"network": network.init(key, features), "exploration": jnp.zeros(actions.size)}
        return params | {"structure": jnp.full(len(config.hidden), WHOLE)} if config.structure else params

    def exploit(noise: jax.Array, params: Params, percept: Percept, hypers: Hypers):
        q = action_values(params, percept.observation)
        return draw(noise, q, losses.log_softmax_or_greedy(q, hypers.temperature))

    def act(noise: jax.Array, params: Params, percept: Percept, hypers: Hypers):
        q = action_values(params, percept.observation)
        stickiness = hypers.stickiness * ~percept.first
        exploring = losses.log_sticky_softmax(params["exploration"], percept.previous_action, stickiness)
        # What exploration is credited with goes to its own logits: through the values it drowned all else in noise.
        exploiting = jax.lax.stop_gradient(losses.log_softmax_or_greedy(q, hypers.temperature))
        logits = jnp.logaddexp(jnp.log1p(-hypers.epsilon) + exploiting, jnp.log(hypers.epsilon) + exploring)
        return draw(noise, q, logits)

    def loss(params: Params, slow: Params, batch: Experience, hypers: Hypers):
        del hypers
        q = jax.vmap(action_values, (None, 0))
        q_t_value = q(slow, batch.next_observation)
        q_t_selector = q(params, batch.next_observation) if config.double else q_t_value
        errors = jax.vmap(losses.td_error)(
            q(params, batch.observation), batch.action, batch.reward, batch.discount, q_t_selector, q_t_value
        )
        weight = batch.weight / jnp.maximum(jnp.sum(batch.weight), 1.0)
        value = jnp.sum(weight * losses.half_squared_or_huber(errors, config.huber))
        return value, {"td_error": jnp.sum(weight * jnp.abs(errors))}

    return Agent(init, act, exploit, loss, noise=actions.noise)

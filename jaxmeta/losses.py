"""Losses on one transition and returns of one environment. The caller vmaps."""

import chex
import jax
import jax.numpy as jnp


def td_error(q_tm1, a_tm1, r_t, discount_t, q_t_selector, q_t_value):
    """Double Q-learning's error, r_t + discount_t * q_t_value[argmax q_t_selector] - q_tm1[a_tm1].

    Nothing is gradient-stopped: the caller keeps the target out of the update by computing `q_t_value` from slow
    parameters, so that a meta-gradient still sees how the target depends on them. With `q_t_selector` equal to
    `q_t_value` this is plain Q-learning.

    Args:
      q_tm1: action values before the step, [A] float32.
      a_tm1: action taken, [] int32.
      r_t: reward, [] float32, in the environment's units.
      discount_t: [] float32, the discount times 0 where terminated (not where truncated).
      q_t_selector: action values after the step that choose the action, [A] float32.
      q_t_value: action values after the step that value it, [A] float32.

    Returns:
      The error, [] float32.

    Reference: Watkins and Dayan (1992); van Hasselt, Guez and Silver (2016).

    >>> q = jnp.array([1.0, 2.0])
    >>> float(td_error(q, 0, 1.0, 0.5, q, q))
    1.0
    """
    chex.assert_rank([q_tm1, a_tm1, r_t, discount_t, q_t_selector, q_t_value], [1, 0, 0, 0, 1, 1])
    return r_t + discount_t * q_t_value[jnp.argmax(q_t_selector)] - q_tm1[a_tm1]


def half_squared_or_huber(error, threshold: float):
    """0.5 * error**2, linear beyond the threshold where that is above 0 (Huber, 1964). Any shape."""
    if threshold == 0:
        return 0.5 * error**2
    inside = jnp.clip(error, -threshold, threshold)
    return inside * (error - 0.5 * inside)


def returns_to_go(reward, discount):
    """G[t] = reward[t] + discount[t] * G[t + 1], with G[T] = 0.

    Args:
      reward: [T] float32.
      discount: [T] float32, 0 at the last step of an episode.

    Returns:
      [T] float32.

    >>> returns_to_go(jnp.array([1.0, 1.0, 1.0]), jnp.array([0.5, 0.0, 0.5])).tolist()
    [1.5, 1.0, 1.0]
    """
    chex.assert_rank([reward, discount], 1)

    def backwards(later, step):
        now = step[0] + step[1] * later
        return now, now

    nothing = jnp.zeros((), jnp.result_type(reward, discount))
    return jax.lax.scan(backwards, nothing, (reward, discount), reverse=True)[1]


def first_episode_return(reward, done):
    """Undiscounted return of the episode that a rollout starts with.

    Args:
      reward: [T] float32.
      done: [T] bool, true at the last step of an episode.

    Returns:
      [] float32, the sum up to and including the first `done`.

    >>> float(first_episode_return(jnp.array([1.0, 1.0, 1.0]), jnp.array([False, True, False])))
    2.0
    """
    chex.assert_rank([reward, done], 1)
    ended_before = jnp.cumsum(done) - done
    return jnp.sum(reward * (ended_before == 0))


def leave_one_out_advantage(returns):
    """Each return minus the mean of the others at the same time: a baseline that keeps REINFORCE unbiased.

    Args:
      returns: [T, E] float32, E at least 2 (with E = 1 there is no other, and no baseline).

    Returns:
      [T, E] float32.

    Reference: Kool, van Hoof and Welling (2019).
    """
    chex.assert_rank(returns, 2)
    others = returns.shape[1] - 1
    if others == 0:
        return returns
    return returns - (jnp.sum(returns, axis=1, keepdims=True) - returns) / others


def policy_gradient(logits, action, advantage):
    """REINFORCE's surrogate -log pi(a) * advantage, and the policy's entropy, of one step.

    Args:
      logits: [A] float32.
      action: [] int32.
      advantage: [] float32, treated as a constant.

    Returns:
      The surrogate and the entropy in nats, [] float32 each.

    Reference: Williams (1992).
    """
    chex.assert_rank([logits, action, advantage], [1, 0, 0])
    log_probs = jax.nn.log_softmax(logits)
    entropy = -jnp.sum(jnp.exp(log_probs) * log_probs)
    return -log_probs[action] * jax.lax.stop_gradient(advantage), entropy


def log_softmax_or_greedy(q, temperature):
    """Log-probabilities of the softmax policy over q / temperature, or of the greedy policy where that is 0.

    Args:
      q: action values, [A] float32.
      temperature: [] float32, in the values' units, at least 0.

    Returns:
      [A] float32.
    """
    chex.assert_rank([q, temperature], [1, 0])
    soft = jax.nn.log_softmax(q / jnp.where(temperature > 0, temperature, 1.0))
    greedy = jnp.where(jnp.arange(q.size) == jnp.argmax(q), 0.0, -jnp.inf)
    return jnp.where(temperature > 0, soft, greedy)


def log_sticky_softmax(logits, previous_action, stickiness):
    """Log-probabilities of repeating the previous action with some probability, and drawing from a softmax otherwise.

    Args:
      logits: [A] float32.
      previous_action: [] int32.
      stickiness: probability of repeating, [] float32.

    Returns:
      [A] float32.
    """
    chex.assert_rank([logits, previous_action, stickiness], [1, 0, 0])
    repeated = jnp.arange(logits.size) == previous_action
    return jnp.log(stickiness * repeated + (1 - stickiness) * jax.nn.softmax(logits))

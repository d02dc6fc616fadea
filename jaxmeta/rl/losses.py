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


def episode_starts(first):
    """Index of the step that the episode of each step started with, or 0 where that was before; [T] bool to [T] int32.

    >>> episode_starts(jnp.array([False, False, True, False])).tolist()
    [0, 0, 2, 2]
    """
    chex.assert_rank(first, 1)
    return jax.lax.cummax(jnp.where(first, jnp.arange(first.size), 0))


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


def naive_surrogate(log_ratio, first, advantage):
    """REINFORCE's surrogate, log pi(a) * advantage: its gradient is right on average, its second derivative is not.

    Args:
      log_ratio: [T] float32, log-probability of each action minus what it was when the action was taken.
      first: [T] bool, the first step of an episode; not used.
      advantage: [T] float32; nothing is gradient-stopped.

    Returns:
      [T] float32, to be maximised.

    Reference: Williams (1992).
    """
    del first
    return log_ratio * advantage


def lvc_surrogate(log_ratio, first, advantage):
    """The low-variance-curvature surrogate, pi(a) / old pi(a) * advantage.

    Its second derivative leaves out how an action changes what later actions are worth, and with that most of the
    variance. Arguments and result are those of `naive_surrogate`.

    Reference: Rothfuss et al. (2019), ProMP, section 4.
    """
    del first
    return jnp.exp(log_ratio) * advantage


def dice_surrogate(log_ratio, first, advantage):
    """DiCE with a baseline: derivatives of any order are right on average.

    (box[t] - box[t - 1]) * advantage[t], where box[t] is the probability of all actions of the episode up to t over
    what it was. Arguments and result are those of `naive_surrogate`. With advantages that reach to the episode's end
    this is the sum over t of box[t] * reward[t], with the any-order baseline of Mao et al. (2019).

    Reference: Foerster et al. (2018), DiCE; Farquhar, Whiteson and Foerster (2019), loaded DiCE.
    """
    chex.assert_rank([log_ratio, first, advantage], 1)
    before = jnp.cumsum(log_ratio) - log_ratio
    before -= before[episode_starts(first)]
    return jnp.exp(before) * jnp.expm1(log_ratio) * advantage


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

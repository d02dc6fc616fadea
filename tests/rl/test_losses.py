"""Losses and returns against NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmeta.rl import losses


def test_td_error_selects_with_one_network_and_values_with_the_other():
    error = losses.td_error(
        jnp.array([1.0, 5.0]), 0, 2.0, 0.5, q_t_selector=jnp.array([0.0, 9.0]), q_t_value=jnp.array([7.0, 4.0])
    )
    assert float(error) == 2.0 + 0.5 * 4.0 - 1.0


def test_td_error_target_is_differentiable_for_the_meta_gradient():
    gradient = jax.grad(lambda q: losses.td_error(jnp.zeros(2), 0, 0.0, 0.5, q, q))(jnp.array([1.0, 3.0]))
    np.testing.assert_allclose(gradient, [0.0, 0.5])


def test_td_error_refuses_a_batch():
    q = jnp.zeros((3, 2))
    with pytest.raises(AssertionError):
        losses.td_error(q, jnp.zeros(3, int), jnp.zeros(3), jnp.zeros(3), q, q)


@pytest.mark.parametrize("error", [-3.0, -1.0, -0.2, 0.0, 0.7, 1.0, 5.0])
def test_huber_is_quadratic_inside_and_linear_outside(error):
    expected = 0.5 * error**2 if abs(error) <= 1 else abs(error) - 0.5
    assert float(losses.half_squared_or_huber(error, 1.0)) == pytest.approx(expected)
    assert float(losses.half_squared_or_huber(error, 0.0)) == pytest.approx(0.5 * error**2)


def test_returns_to_go_matches_a_loop():
    generator = np.random.default_rng(0)
    reward, discount = generator.normal(size=7).astype(np.float32), generator.uniform(size=7).astype(np.float32)
    expected, later = np.zeros(7), 0.0
    for step in reversed(range(7)):
        later = reward[step] + discount[step] * later
        expected[step] = later
    np.testing.assert_allclose(losses.returns_to_go(jnp.array(reward), jnp.array(discount)), expected, rtol=1e-5)


def test_leave_one_out_advantage_matches_a_loop_and_is_zero_for_equal_returns():
    returns = np.random.default_rng(1).normal(size=(3, 4)).astype(np.float32)
    expected = [[row[e] - np.delete(row, e).mean() for e in range(4)] for row in returns]
    np.testing.assert_allclose(losses.leave_one_out_advantage(jnp.array(returns)), expected, rtol=1e-4)
    assert not np.any(losses.leave_one_out_advantage(jnp.ones((3, 4))))


def test_leave_one_out_advantage_of_a_single_environment_has_no_baseline():
    returns = jnp.ones((3, 1))
    np.testing.assert_array_equal(losses.leave_one_out_advantage(returns), returns)


def test_greedy_policy_is_the_limit_of_the_softmax_policy():
    q = jnp.array([1.0, 3.0, 2.0])
    np.testing.assert_allclose(np.exp(losses.log_softmax_or_greedy(q, jnp.float32(0.0))), [0, 1, 0])
    np.testing.assert_allclose(np.exp(losses.log_softmax_or_greedy(q, jnp.float32(1e-3))), [0, 1, 0], atol=1e-6)


def test_sticky_softmax_mixes_repetition_and_draws():
    logits = jnp.log(jnp.array([0.5, 0.25, 0.25]))
    found = np.exp(losses.log_sticky_softmax(logits, 2, jnp.float32(0.4)))
    np.testing.assert_allclose(found, [0.3, 0.15, 0.55], rtol=1e-5)

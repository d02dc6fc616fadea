"""Loops that keep less: the same results and derivatives, in less memory."""

from typing import get_args

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmeta.core.scans import Remat, nested_scan, rematerialised, scan_of

WIDTH = 64


def body(carry, x):
    """A step whose inside is much larger than its carry."""
    inside = jnp.tanh(carry[:, None] * jnp.linspace(0.5, 1.5, 32) + x)
    return jnp.mean(jnp.tanh(inside) * jnp.cos(inside), axis=1), jnp.sum(inside)


def loss(scan, steps):
    xs = jnp.linspace(0, 1, steps)

    def function(carry):
        carry, ys = scan(body, carry, xs)
        return jnp.sum(carry**2) + jnp.sum(ys)

    return function


@pytest.mark.parametrize("steps", [1, 2, 9, 11])
@pytest.mark.parametrize("scan", [rematerialised, nested_scan])
def test_values_and_derivatives_are_those_of_the_plain_loop(scan, steps):
    start = jnp.linspace(-1, 1, WIDTH)
    plain = jax.jit(jax.value_and_grad(loss(jax.lax.scan, steps)))(start)
    other = jax.jit(jax.value_and_grad(loss(scan, steps)))(start)
    jax.tree.map(lambda one, two: np.testing.assert_allclose(one, two, rtol=1e-5, atol=1e-6), plain, other)


@pytest.mark.parametrize("scan", [rematerialised, nested_scan])
def test_a_length_takes_the_place_of_inputs(scan):
    carry, ys = scan(lambda carry, _: (carry + 1, carry), jnp.zeros(()), None, 7)
    assert carry == 7
    np.testing.assert_array_equal(ys, np.arange(7))


def memory(scan, steps):
    """Bytes that the derivative holds on to while it is computed."""
    compiled = jax.jit(jax.grad(loss(scan, steps))).lower(jnp.zeros(WIDTH)).compile()
    return compiled.memory_analysis().temp_size_in_bytes


def test_memory_grows_with_the_root_of_the_steps_where_it_is_nested():
    few, many = 1024, 16384
    plain, kept, nested = (memory(scan, many) for scan in (jax.lax.scan, rematerialised, nested_scan))
    assert plain > 10 * kept > 50 * nested
    # What is nested holds the inputs too, 4 bytes a step here: without them 16 times the steps take 4 times as much.
    inputs = 4
    assert nested - inputs * many < 4.5 * (memory(nested_scan, few) - inputs * few)


def test_settings_name_loops():
    loops = {"none": jax.lax.scan, "steps": rematerialised, "nested": nested_scan}
    assert set(loops) == set(get_args(Remat))
    assert all(scan_of(remat) is loop for remat, loop in loops.items())

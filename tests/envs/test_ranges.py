import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmeta_envs.ranges import SHIFT, Range, draw

ENDS = [(0.5, 2.0), (-3.0, -1.0), (-1.0, 2.0), (0.0, 4.0), (-4.0, 0.0)]
RANGES = {str(index): Range(*ends) for index, ends in enumerate(ENDS)}


@pytest.mark.parametrize("ends", ENDS)
def test_places_run_from_the_lowest_to_the_highest_value(ends):
    places = jnp.linspace(-SHIFT, 1 + SHIFT, 31)
    values = Range(*ends).value(places)
    assert (np.diff(values) > 0).all()
    np.testing.assert_allclose([Range(*ends).value(place) for place in (0.0, 1.0)], ends, rtol=1e-6)
    np.testing.assert_allclose(Range(*ends).place(values), places, atol=1e-5)


def test_ends_of_one_sign_are_even_in_the_logarithm_and_others_in_the_value():
    half = [float(Range(*ends).value(jnp.array(0.5))) for ends in ENDS]
    np.testing.assert_allclose(half, [1.0, -np.sqrt(3), 0.5, 2.0, -2.0], rtol=1e-6)


def test_shifted_values_lie_outside_but_not_beyond_a_zero_that_the_range_ends_in():
    keys = jax.random.split(jax.random.key(0), 400)
    drawn = jax.jit(jax.vmap(lambda key: draw(key, "shifted", RANGES)))(keys)
    for name, (low, high) in RANGES.items():
        values = np.asarray(drawn[name])
        assert ((values < low) | (values > high)).all()
        assert (low == 0) == bool((values > high).all())
        assert (high == 0) == bool((values < low).all())

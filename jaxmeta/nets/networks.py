"""Networks, as Flax modules. Parameters are plain nested dicts; whatever is named `head...` is the last layer."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxmeta.core.types import PyTree, Spec
from jaxmeta.nets.layers import dense
from jaxmeta.nets.pictures import Shape, encoded


def features_of(spec: Spec, observation: PyTree) -> jax.Array:
    """One observation as numbers, [D]: one-hot where it is discrete, else its leaves side by side."""
    if spec.num_observations is not None:
        return jax.nn.one_hot(observation, spec.num_observations)
    return jnp.concatenate([jnp.ravel(leaf) for leaf in jax.tree.leaves(observation)])


def nothing_seen(spec: Spec) -> PyTree:
    """An observation of zeros, to draw a network's parameters with."""
    return jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), spec.observation)


class QNetwork(nn.Module):
    """A multi-layer perceptron from a flat observation to action values.

    Attributes:
      num_actions: A.
      hidden: width of each ReLU layer.
      dueling: value and advantage heads, q = v + a - mean(a) (Wang et al., 2016).
      picture: shape of an observation that is a picture, which is convolved first.
    """

    num_actions: int
    hidden: tuple[int, ...]
    dueling: bool = False
    picture: Shape = ()

    @nn.compact
    def __call__(self, features, structure=None):
        """Maps features [D] float32 to action values [A] float32.

        Where a `structure` is given, [layers] float32, only so much of each hidden layer takes part, see `taking_part`.
        """
        features = encoded(features, self.picture)
        for layer, width in enumerate(self.hidden):
            features = nn.relu(dense(width, name=f"torso_{layer}")(features))
            if structure is not None:
                features *= taking_part(structure[layer], width)
        advantage = dense(self.num_actions, name="head")(features)
        if not self.dueling:
            return advantage
        value = dense(1, name="head_value")(features)
        return value + advantage - jnp.mean(advantage)


WHOLE = 12.0
"""The structure of a layer all of whose units take part."""


def taking_part(edge: jax.Array, width: int) -> jax.Array:
    """How far each unit of a layer takes part, from 0 to 1, [width] float32, falling softly from the first to the last.

    Args:
      edge: [] float32; at 0 half of the units take part, at `WHOLE` all, at its negative none.
      width: units.

    >>> (100 * taking_part(jnp.array(0.0), 4)).round().tolist()
    [100.0, 88.0, 12.0, 0.0]
    """
    place = (jnp.arange(width) + 0.5) / width
    return jax.nn.sigmoid(edge + 8.0 * (1.0 - 2.0 * place))


class QTable(nn.Module):
    """A table of action values, read by a one-hot observation; it starts at zero.

    Attributes:
      num_actions: A.
    """

    num_actions: int

    @nn.compact
    def __call__(self, features):
        """Maps a one-hot state [S] float32 to its row of action values [A] float32."""
        return dense(self.num_actions, use_bias=False, kernel_init=nn.initializers.zeros, name="head")(features)


class PolicyNetwork(nn.Module):
    """A multi-layer perceptron from a flat observation to the numbers of a distribution over actions.

    Attributes:
      outputs: N, numbers of the distribution that depend on the observation.
      hidden: width of each tanh layer.
      scales: numbers that do not depend on it, appended; logarithms of standard deviations.
      initial_scale: standard deviation at first.
      picture: shape of an observation that is a picture, which is convolved first.
    """

    outputs: int
    hidden: tuple[int, ...]
    scales: int = 0
    initial_scale: float = 1.0
    picture: Shape = ()

    @nn.compact
    def __call__(self, features):
        """Maps features [D] float32 to numbers [N + scales] float32, the first N near zero at first."""
        features = _tanh_layers(encoded(features, self.picture), self.hidden)
        numbers = dense(self.outputs, kernel_init=nn.initializers.orthogonal(0.01), name="head")(features)
        if not self.scales:
            return numbers
        start = nn.initializers.constant(jnp.log(self.initial_scale))
        return jnp.concatenate([numbers, self.param("head_log_scale", start, (self.scales,))])


class ValueNetwork(nn.Module):
    """A multi-layer perceptron from a flat observation to a value.

    Attributes:
      hidden: width of each tanh layer.
      picture: shape of an observation that is a picture, which is convolved first.
    """

    hidden: tuple[int, ...]
    picture: Shape = ()

    @nn.compact
    def __call__(self, features):
        """Maps features [D] float32 to a value [] float32."""
        return dense(1, name="head")(_tanh_layers(encoded(features, self.picture), self.hidden))[0]


def _tanh_layers(features, hidden):
    for layer, width in enumerate(hidden):
        features = nn.tanh(dense(width, name=f"torso_{layer}")(features))
    return features


def zero_at_first(outputs: int, name: str) -> nn.Dense:
    """A linear layer that puts out zero until it has learned."""
    return dense(outputs, kernel_init=nn.initializers.zeros, name=name)


class Setter(nn.Module):
    """Numbers that are zero at first: what a policy over hyper-parameters adds to them.

    Attributes:
      outputs: N.
      width: units of the one tanh layer, which what sees nothing does not need.
    """

    outputs: int
    width: int

    @nn.compact
    def __call__(self, seen):
        """Maps what is seen, [D] float32, to numbers [N] float32."""
        if seen.size:
            seen = nn.tanh(dense(self.width, name="torso_0")(seen))
        return zero_at_first(self.outputs, "head")(seen)

"""Networks, as Flax modules. Parameters are plain nested dicts; whatever is named `head...` is the last layer."""

import flax.linen as nn
import jax.numpy as jnp


class QNetwork(nn.Module):
    """A multi-layer perceptron from a flat observation to action values.

    Attributes:
      num_actions: A.
      hidden: width of each ReLU layer.
      dueling: value and advantage heads, q = v + a - mean(a) (Wang et al., 2016).
    """

    num_actions: int
    hidden: tuple[int, ...]
    dueling: bool = False

    @nn.compact
    def __call__(self, features):
        """Maps features [D] float32 to action values [A] float32."""
        for layer, width in enumerate(self.hidden):
            features = nn.relu(nn.Dense(width, name=f"torso_{layer}")(features))
        advantage = nn.Dense(self.num_actions, name="head")(features)
        if not self.dueling:
            return advantage
        value = nn.Dense(1, name="head_value")(features)
        return value + advantage - jnp.mean(advantage)


class QTable(nn.Module):
    """A table of action values, read by a one-hot observation; it starts at zero.

    Attributes:
      num_actions: A.
    """

    num_actions: int

    @nn.compact
    def __call__(self, features):
        """Maps a one-hot state [S] float32 to its row of action values [A] float32."""
        return nn.Dense(self.num_actions, use_bias=False, kernel_init=nn.initializers.zeros, name="head")(features)

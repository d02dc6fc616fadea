"""Update rules that are learned: networks that set how far, and along which mix of momenta, each parameter moves.

All of them are one formula,

    params <- params - learning_rate * exp(factor) * sum_k mix[k] * direction[k],

whose directions are the gradient and its averages over several time scales, divided by the root of its mean square as
in Adam and RMSProp, or as they are, as in plain descent. What differs is the network that sets `factor` and `mix`:
`Structured`, one setting per layer, `Recurrent`, one per parameter, `Attentive`, one per unit. Its last layer starts at
zero, where the rule is Adam, RMSProp or gradient descent, exactly.

The root of the mean square is held constant in the rule's derivative, which would not be finite where a gradient is 0.

References: Andrychowicz et al. (2016); Metz et al. (2022), VeLO; Lan et al. (2023), Optim4RL; Goldie et al. (2024),
OPEN.
"""

import itertools
import re
from collections.abc import Callable
from typing import Literal, NamedTuple, cast

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from flax import struct

from jaxmeta.core.config import Config, Count
from jaxmeta.core.errors import UsageError, Words, require
from jaxmeta.core.types import Key, Params, PyTree
from jaxmeta.inner.optimizers import UpdateContext, UpdateRule
from jaxmeta.nets.layers import dense, float_dtype, layer_norm
from jaxmeta.nets.memories import CELLS
from jaxmeta.nets.networks import zero_at_first

DECAYS = (0.5, 0.9, 0.99)
"""Of the averages of the gradient; the second is Adam's."""
VALUE_DECAYS = (0.9, 0.99)
"""Of the averages of the loss, whose ratio says whether it falls."""
EPSILON = 1e-8
DIRECTIONS = 1 + len(DECAYS)
"""K, the gradient itself and its averages."""


class UpdateRuleConfig(Config, frozen=True, kw_only=True):
    """The network of a learned update rule."""

    network: Literal["structured", "recurrent", "attention"] = "structured"
    """What sets how parameters move: `structured`, per layer; `recurrent`, per parameter; or `attention`, per unit."""
    base: Literal["adam", "rmsprop", "sgd"] = "adam"
    """What the rule is before it has learned: `adam`, `rmsprop` or `sgd`."""
    width: Count = 8
    """Units of the `recurrent` rule's cell, numbers of a token of the `attention` rule."""
    cell: Literal["gru", "lstm"] = "gru"
    """The cell of the `recurrent` rule."""

    def __post_init__(self):
        super().__post_init__()
        divides = self.network != "attention" or self.width % Attentive.heads == 0
        require(divides, "width", f"be a multiple of {Attentive.heads} under network 'attention'", self.width)


def make_update_rule(config: UpdateRuleConfig) -> UpdateRule:
    """The learned rule that a configuration describes."""
    networks: dict[str, Callable[[int], Network]] = {
        "structured": Structured,
        "recurrent": lambda num_layers: Recurrent(config.width, config.cell),
        "attention": lambda num_layers: Attentive(config.width),
    }
    return learned_rule(networks[config.network], config.base)


class Base(NamedTuple):
    """What a rule is before it has learned."""

    direction: int
    """The one along which parameters move."""
    square_decay: float | None
    """Of the average of the gradient's square, by whose root directions are divided; None: they are not."""
    unbiased: bool = False
    """Whether that average makes up for its start at zero."""
    under_root: bool = False
    """Whether what keeps from dividing by zero is added under the root, where it also keeps small gradients small."""


BASES = {
    "adam": Base(1 + DECAYS.index(0.9), 0.999, unbiased=True),
    "rmsprop": Base(0, 0.99, under_root=True),
    "sgd": Base(0, None),
}
OUTPUTS = 1 + DIRECTIONS
"""Numbers that a network puts out for what it sets: factor, and additions to the mix."""
LARGEST_FACTOR = 5.0
"""Of the logarithm of a step's size."""


class Layer(NamedTuple):
    """Parameters that share a place in the tree with a matrix: kernel and bias."""

    leaves: tuple[int, ...]
    """Their positions among the leaves of the tree."""
    depth: float
    """Share of the layers that come before, from 0 to 1."""


def layers_of(params: Params) -> list[Layer]:
    """The layers of a network, in order: by name, numbers as numbers, what is named `head...` last.

    Raises:
      UsageError: there is none.

    >>> [layer.leaves for layer in layers_of({"head": {"w": jnp.ones((2, 2))}, "l_0": {"w": jnp.ones((2, 2))}})]
    [(1,), (0,)]
    """
    groups: dict[str, list[int]] = {}
    leaves = jax.tree_util.tree_flatten_with_path(params)[0]
    for index, (path, _) in enumerate(leaves):
        groups.setdefault(jax.tree_util.keystr(path[:-1]), []).append(index)
    with_matrix = [name for name, group in groups.items() if any(leaves[index][1].ndim >= 2 for index in group)]
    if not with_matrix:
        raise UsageError("params", "hold a matrix for a learned rule", Words(f"{len(leaves)} leaves without one"))
    ordered = sorted(with_matrix, key=_place)
    return [Layer(tuple(groups[name]), index / max(1, len(ordered) - 1)) for index, name in enumerate(ordered)]


def _place(name: str) -> tuple:
    parts = [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", name)]
    return "['head" in name, parts


class Input(NamedTuple):
    """What a network sees of one leaf. Shapes follow the leaf's own, [...]."""

    directions: jax.Array
    """[..., K] float32."""
    param: jax.Array
    """[...] float32."""


class Network(nn.Module):
    """Sets factor and mix for every leaf of every layer."""

    def reset(self, params: Params, layers: list[Layer]) -> PyTree:
        """Its initial state; by default none."""
        del params, layers

    def __call__(
        self, carry: PyTree, inputs: list[Input], context: jax.Array, layers: list[Layer]
    ) -> tuple[PyTree, dict[int, jax.Array]]:
        """One step.

        Args:
          carry: from the step before.
          inputs: of every leaf.
          context: what all parameters share, [C] float32, see `_context`.
          layers: of the network that learns.

        Returns:
          The carry, and by leaf the `OUTPUTS` numbers that set its step, [..., OUTPUTS], which broadcast to the leaf.
        """
        raise NotImplementedError


class Structured(Network):
    """A rate for each layer, a schedule, and a mix that may change with it: a few numbers in all.

    Attributes:
      num_layers: of the networks that it is for.
    """

    num_layers: int

    @nn.compact
    def __call__(self, carry, inputs, context, layers):
        """See `Network`."""
        rates = self.param("rates", nn.initializers.zeros, (self.num_layers,))
        shared = zero_at_first(OUTPUTS, "schedule")(context)
        numbers = {}
        for rate, layer in zip(rates, layers, strict=True):
            for leaf in layer.leaves:
                numbers[leaf] = shared.at[0].add(rate)
        return carry, numbers


class Recurrent(Network):
    """A recurrent cell for every parameter, with the same weights for all.

    Attributes:
      width: units of the cell.
      cell: `gru` or `lstm`.
    """

    width: int
    cell: str = "gru"

    def reset(self, params, layers):
        """The cell's state for every parameter, leaves [..., width]."""
        leaves = jax.tree.leaves(params)
        cell = self._cell(parent=None)
        key = jax.random.key(0)  # a state of zeros is not drawn
        return [[cell.initialize_carry(key, (*leaves[leaf].shape, 1)) for leaf in layer.leaves] for layer in layers]

    def _cell(self, **options):
        return CELLS[self.cell](self.width, param_dtype=float_dtype(), **options)

    @nn.compact
    def __call__(self, carry, inputs, context, layers):
        """See `Network`."""
        cell, last = self._cell(name="cell"), zero_at_first(OUTPUTS, "head")
        numbers, after = {}, []
        for states, layer in zip(carry, layers, strict=True):
            after.append([])
            for state, leaf in zip(states, layer.leaves, strict=True):
                seen = inputs[leaf]
                features = _with_context(_of_parameter(seen), _about(context, layer, seen.param.ndim < 2))
                state, output = cell(state, features)
                after[-1].append(state)
                numbers[leaf] = last(output)
        return after, numbers


class Attentive(Network):
    """Attention among the units of a layer, which so sees itself; what it sets holds for all that leads into a unit.

    A token is a row of parameters: for every output of a layer its incoming weights, as means and root mean squares of
    what is known of them, or its bias.

    Attributes:
      width: numbers of a token, a multiple of `heads`.
      heads: attention heads.
    """

    width: int
    heads: int = 2

    @nn.compact
    def __call__(self, carry, inputs, context, layers):
        """See `Network`."""
        embed = dense(self.width, name="embedding")
        attend = nn.MultiHeadDotProductAttention(self.heads, name="attention", param_dtype=float_dtype())
        first_norm, second_norm = layer_norm("norm"), layer_norm("second_norm")
        hidden, last = dense(self.width, name="hidden"), zero_at_first(OUTPUTS, "head")
        numbers = {}
        for layer in layers:
            rows = [
                _with_context(_of_rows(inputs[leaf]), _about(context, layer, inputs[leaf].param.ndim < 2))
                for leaf in layer.leaves
            ]
            tokens = embed(jnp.concatenate(rows))
            tokens += attend(first_norm(tokens))
            tokens += nn.relu(hidden(second_norm(tokens)))
            ends = list(itertools.accumulate(map(len, rows)))[:-1]
            numbers |= dict(zip(layer.leaves, jnp.split(last(tokens), ends), strict=True))
        return carry, numbers


def _context(progress: jax.Array, trend: jax.Array) -> jax.Array:
    """What all parameters share, [3]: progress, its square, and the logarithm of the loss now over what it was."""
    return jnp.stack([progress, progress**2, trend])


def _about(context: jax.Array, layer: Layer, is_bias: bool) -> jax.Array:
    """The context, with what kind of parameter is meant."""
    return jnp.concatenate([context, jnp.array([layer.depth, float(is_bias)])])


def _of_parameter(seen: Input) -> jax.Array:
    """[..., 2 K + 1]: directions, squashed; the logarithms of their sizes, from -1 to 1; the parameter."""
    size = jnp.log(jnp.abs(seen.directions) + EPSILON) / -jnp.log(EPSILON)
    return jnp.concatenate([jnp.tanh(seen.directions), size, jnp.tanh(seen.param)[..., None]], axis=-1)


def _of_rows(seen: Input) -> jax.Array:
    """[units, 2 (2 K + 1)]: means and root mean squares of a parameter's features over what leads into a unit."""
    features = _of_parameter(seen)
    rows = jnp.moveaxis(features.reshape(-1, *features.shape[-2:]), 1, 0)
    mean_square = jnp.mean(rows**2, axis=1)
    return jnp.concatenate([jnp.mean(rows, axis=1), jnp.sqrt(mean_square + EPSILON)], axis=-1)


def _with_context(features: jax.Array, context: jax.Array) -> jax.Array:
    context = jnp.broadcast_to(context, (*features.shape[:-1], context.size))
    return jnp.concatenate([features, context], axis=-1)


class RuleState(struct.PyTreeNode):
    """What a learned rule remembers while parameters are learned."""

    count: jax.Array
    """[] int32, steps taken."""
    momenta: Params
    """Averages of the gradient, leaves [K - 1, ...] float32."""
    square: Params
    """Average of its square, leaves as the parameters."""
    values: jax.Array
    """[2] float32, averages of the loss."""
    carry: PyTree
    """The network's own."""


def learned_rule(network: Callable[[int], Network], base: str) -> UpdateRule:
    """A rule whose weights are a network's.

    Args:
      network: builds it, given the number of layers.
      base: what the rule is at first, one of `BASES`.

    Raises (when it meets parameters):
      UsageError: the network cannot be used with parameters of this shape.
    """
    from_optax = BASES[base]
    plain = jax.nn.one_hot(from_optax.direction, DIRECTIONS)

    def init(key: Key, params: Params):
        layers = layers_of(params)
        module = network(len(layers))
        state = reset(params)
        inputs = _inputs(params, _directions(params, state.replace(count=state.count + 1), from_optax))
        return module.init(key, state.carry, inputs, _context(*jnp.zeros(2)), layers)

    def reset(params: Params) -> RuleState:
        layers = layers_of(params)
        return RuleState(
            count=jnp.zeros((), jnp.int32),
            momenta=jax.tree.map(lambda leaf: jnp.zeros((len(DECAYS), *leaf.shape), leaf.dtype), params),
            square=jax.tree.map(jnp.zeros_like, params),
            values=jnp.zeros(len(VALUE_DECAYS)),
            carry=network(len(layers)).reset(params, layers),
        )

    def update(weights: PyTree, gradient: Params, state: RuleState, params: Params, seen: UpdateContext):
        layers = layers_of(params)
        state, trend = _remember(state, gradient, seen.value, from_optax)
        directions = _directions(gradient, state, from_optax)
        context = _context(seen.progress, trend)
        inputs = _inputs(params, directions)
        carry, numbers = cast(tuple, network(len(layers)).apply(weights, state.carry, inputs, context, layers))
        leaves, structure = jax.tree.flatten(directions)
        steps = []
        for index, direction in enumerate(leaves):
            setting = numbers.get(index, jnp.zeros(OUTPUTS))
            factor = LARGEST_FACTOR * jnp.tanh(setting[..., 0] / LARGEST_FACTOR)
            shares = plain + setting[..., 1:]
            # One by one: jnp.sum of a product of seven axes, as with several seeds, crashes XLA on a CPU in jaxlib
            # 0.10.2 to 0.11.0 (jax-ml/jax#39257).
            mixed = sum(shares[..., k] * direction[..., k] for k in range(direction.shape[-1]))
            steps.append(-seen.learning_rate * jnp.exp(factor) * mixed)
        return jax.tree.unflatten(structure, steps), state.replace(carry=carry)

    return UpdateRule(init, reset, update)


def _remember(state: RuleState, gradient: Params, value: jax.Array, base: Base) -> tuple[RuleState, jax.Array]:
    """The state with one more gradient and loss, and the logarithm of the loss lately over what it was for longer."""
    count = state.count + 1
    decays = jnp.array(DECAYS)

    def average(momenta, leaf):
        decay = decays.reshape(-1, *[1] * leaf.ndim).astype(leaf.dtype)
        return decay * momenta + (1 - decay) * leaf

    decay = base.square_decay or 0.0
    square = jax.tree.map(lambda old, leaf: decay * old + (1 - decay) * leaf**2, state.square, gradient)
    value_decays = jnp.array(VALUE_DECAYS)
    values = value_decays * state.values + (1 - value_decays) * jnp.abs(value)
    unbiased = values / (1 - value_decays**count)
    short, long = jnp.log(unbiased + EPSILON)
    momenta = jax.tree.map(average, state.momenta, gradient)
    return state.replace(count=count, momenta=momenta, square=square, values=values), jnp.tanh(short - long)


def _directions(gradient: Params, state: RuleState, base: Base) -> Params:
    """The gradient and its averages, without the bias of their start, leaves [..., K]."""
    decays = jnp.array(DECAYS)

    def of_leaf(leaf, momenta, square):
        unbiased = 1 - decays.reshape(-1, *[1] * leaf.ndim) ** state.count
        stacked = jnp.moveaxis(jnp.concatenate([leaf[None], momenta / unbiased]), 0, -1)
        if base.square_decay is None:
            return stacked
        square = jax.lax.stop_gradient(square)
        if base.unbiased:
            square /= 1 - base.square_decay**state.count
        root = jnp.sqrt(square + EPSILON) if base.under_root else jnp.sqrt(square) + EPSILON
        return stacked / root[..., None]

    return jax.tree.map(of_leaf, gradient, state.momenta, state.square)


def _inputs(params: Params, directions: Params) -> list[Input]:
    return [Input(*pair) for pair in zip(jax.tree.leaves(directions), jax.tree.leaves(params), strict=True)]


def as_optax(rule: UpdateRule, weights: PyTree, learning_rate: float) -> optax.GradientTransformationExtraArgs:
    """A trained rule for anybody's training loop.

    Its `update` takes the loss as `value` and the share of training that has passed as `progress`, both [] float.

    Args:
      rule: the rule.
      weights: what it has learned.
      learning_rate: what its steps are multiplied by; the one that it was trained with, unless the scale of what is
        trained differs.
    """

    def init(params):
        fitting = jax.eval_shape(rule.init, jax.random.key(0), params)
        fits = jax.tree.all(jax.tree.map(lambda mine, wanted: jnp.shape(mine) == wanted.shape, weights, fitting))
        require(fits, "params", "have as many layers as those that the rule was learned with", len(layers_of(params)))
        return rule.init_state(params)

    def update(updates, state, params=None, **extra):
        for name, given in {"params": params, "value": extra.get("value"), "progress": extra.get("progress")}.items():
            if given is None:
                raise UsageError(name, "be given to the update of a learned rule", None)
        seen = UpdateContext(*(jnp.asarray(x, jnp.float32) for x in (learning_rate, extra["value"], extra["progress"])))
        return rule.update(weights, updates, state, params, seen)

    return optax.GradientTransformationExtraArgs(init, update)

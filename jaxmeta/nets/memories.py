"""Networks with a memory, for learners whose memory does the learning, as Flax modules."""

import functools
import math
import operator
from typing import Literal, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxmeta.core.config import Config, Count, Natural
from jaxmeta.core.errors import require
from jaxmeta.core.types import Key, Params
from jaxmeta.nets.layers import dense, float_dtype, layer_norm
from jaxmeta.nets.pictures import FILTERS, Convolution, Shape

CELLS = {"gru": nn.GRUCell, "lstm": nn.OptimizedLSTMCell}


class RecurrentConfig(Config, frozen=True, kw_only=True):
    """A recurrent cell, and how it is read."""

    cell: Literal["gru", "lstm"] = "gru"
    """The kind of cell."""
    width: Count = 64
    """Units of the cell."""
    readout: Literal["product", "plain"] = "product"
    """How the policy reads the cell: by `product` with what is perceived, or `plain`."""
    span: Natural = 0
    """Steps that the cell remembers at first; 0 stands for a whole trial."""


class ContentAddressedConfig(Config, frozen=True, kw_only=True):
    """A controller and an external memory."""

    width: Count = 64
    """Units of the controller."""
    span: Natural = 0
    """Steps that the controller remembers at first; 0 stands for a whole trial."""
    slots: Count = 32
    """Places of the memory."""
    word: Count = 32
    """Numbers that a place holds."""
    heads: Count = 4
    """Reads, and writes, of a step."""

    def __post_init__(self):
        super().__post_init__()
        require(self.slots >= self.heads, "slots", f"be at least heads = {self.heads}, a read each", self.slots)


class AttentiveConfig(Config, frozen=True, kw_only=True):
    """Causal attention over a trial."""

    width: Count = 64
    """Numbers of a layer's output, a multiple of `heads`."""
    heads: Count = 4
    """Attention heads of a layer."""
    layers: Count = 2
    """Layers of attention."""
    context: Natural = 0
    """Steps that are kept, those of a trial at least; 0 stands for these."""

    def __post_init__(self):
        super().__post_init__()
        require(self.width % self.heads == 0, "heads", f"divide width = {self.width}", self.heads)


class Memory(nn.Module):
    """A network with a memory, for one environment."""

    def initial_memory(self):
        """What is remembered before anything has happened."""
        raise NotImplementedError

    def unroll(self, memory, features: jax.Array):
        """Maps features [T, F] float32 of T steps to the memory after them, numbers [T, N] and values [T], float32.

        What does not depend on the steps before is computed for all of them at once, which is how a network is trained.
        """
        raise NotImplementedError

    def __call__(self, memory, features: jax.Array):
        """Maps features [F] of one step to the memory after it, numbers [N] and a value []: how a network acts."""
        memory, numbers, values = self.unroll(memory, features[None])
        return memory, numbers[0], values[0]

    def initial_parameters(self, key: Key, features: jax.Array) -> Params:
        """Draws parameters for features of this shape."""
        return self.init(key, self.initial_memory(), features)


class Recurrent(Memory):
    """A recurrent cell (Duan et al., 2016, RL^2), read by products with what is perceived.

    Which of the many things that a cell holds matters now depends on what is seen now. A sum of both, as in a dense
    layer on top, cannot select; a product can (Jayakumar et al., 2020).

    Attributes:
      outputs: N, how many numbers the policy needs.
      cell: `gru` or `lstm`.
      width: units of the cell, and of what is read from it.
      reading: `product`, a linear function of the cell's output times one of the features; or `plain`, the output.
      span: steps that the cell remembers at first, see `remembering`.
    """

    outputs: int
    cell: str
    width: int
    readout: str = "product"
    span: int = 2

    def initial_memory(self):
        """The cell's state, leaves [width] float32."""
        return CELLS[self.cell](self.width, parent=None, param_dtype=float_dtype()).initialize_carry(
            jax.random.key(0), (1,)
        )

    def initial_parameters(self, key, features):
        """Draws parameters; the cell remembers for up to `span` steps."""
        return remembering(super().initial_parameters(key, features), ("cell",), self.span)

    @nn.compact
    def unroll(self, memory, features):
        """The cell, step by step, and what is read from it."""
        memory, output = _over_time(CELLS[self.cell])(self.width, name="cell", param_dtype=float_dtype())(
            memory, features
        )
        if self.readout == "product":
            select = dense(self.width, bias_init=nn.initializers.ones, name="select")(features)
            output = select * dense(self.width, name="read")(output)
        return memory, *_policy_and_value(self.outputs, output)


class OfPictures(Memory):
    """A memory that sees pictures: those before and after a step, at either end of its features, are convolved first.

    Attributes:
      memory: reads the encoded features.
      picture: (H, W, C).
    """

    memory: Memory
    picture: Shape

    def setup(self):
        """One convolution for both pictures."""
        self.convolution = Convolution()

    def initial_memory(self):
        """As of the memory."""
        return self.memory.initial_memory()

    def initial_parameters(self, key, features):
        """Draws those of the convolution, and those of the memory as it draws them itself."""
        convolution_key, memory_key = jax.random.split(key)
        own = Convolution(parent=None).init(convolution_key, jnp.zeros(self.picture, features.dtype))
        shown = jnp.zeros(features.size + 2 * (math.prod(self.picture[:2]) * FILTERS - math.prod(self.picture)))
        inner = self.memory.clone(parent=None).initial_parameters(memory_key, shown.astype(features.dtype))
        return {"params": {"convolution": own["params"], "memory": inner["params"]}}

    def unroll(self, memory, features):
        """The memory, over steps whose pictures are encoded all at once."""
        size = math.prod(self.picture)
        before, between, now = jnp.split(features, [size, features.shape[1] - size], axis=1)
        encode = jax.vmap(lambda flat: self.convolution(flat.reshape(self.picture)))
        return self.memory.unroll(memory, jnp.concatenate([encode(before), between, encode(now)], axis=1))


class Slots(NamedTuple):
    """What a content-addressed memory holds."""

    controller: tuple[jax.Array, jax.Array]
    """The controller's state, leaves [width]."""
    contents: jax.Array
    """[slots, word]."""
    reads: jax.Array
    """[heads, slots], where each head last read; rows sum to 1."""
    usage: jax.Array
    """[slots], how much each slot was read or written lately."""


class ContentAddressed(Memory):
    """An LSTM with an external memory that it reads by content and writes where least was used (Santoro et al., 2016).

    A head reads with softmax weights of the cosine similarity between its key and every slot. Before that, its key is
    written, in learned shares, to where the head read last and to the slot used least, which is cleared first.

    Attributes:
      outputs: N, how many numbers the policy needs.
      width: units of the controller.
      slots: places of the memory, at least as many as heads.
      word: numbers that a place holds.
      heads: reads, and writes, of a step.
      span: steps that the controller remembers at first, see `remembering`.
    """

    outputs: int
    width: int
    slots: int
    word: int
    heads: int
    span: int = 2
    usage_decay: float = 0.95

    def initial_memory(self):
        """Nothing is held."""
        controller = nn.OptimizedLSTMCell(self.width, parent=None, param_dtype=float_dtype()).initialize_carry(
            jax.random.key(0), (1,)
        )
        return Slots(
            controller=controller,
            contents=jnp.zeros((self.slots, self.word)),
            reads=jax.nn.one_hot(jnp.zeros(self.heads, jnp.int32), self.slots),
            usage=jnp.zeros(self.slots),
        )

    def initial_parameters(self, key, features):
        """Draws parameters; the controller remembers for up to `span` steps."""
        return remembering(super().initial_parameters(key, features), ("cell", "controller"), self.span)

    @nn.compact
    def unroll(self, memory, features):
        """The memory, step by step, and what is read from it."""
        cell = _over_time(AddressingCell)(self.width, self.slots, self.word, self.heads, self.usage_decay, name="cell")
        memory, output = cell(memory, features)
        return memory, *_policy_and_value(self.outputs, output)


class AddressingCell(nn.Module):
    """A step of `ContentAddressed`, whose attributes it shares."""

    width: int
    slots: int
    word: int
    heads: int
    usage_decay: float

    @nn.compact
    def __call__(self, memory, features):
        """One step: the controller, a write, a read; maps features [F] to the memory and [width + heads * word]."""
        read_before = (memory.reads @ memory.contents).ravel()
        controller, output = nn.OptimizedLSTMCell(self.width, name="controller", param_dtype=float_dtype())(
            memory.controller, jnp.concatenate([features, read_before])
        )
        keys = jnp.tanh(dense(self.heads * self.word, name="keys")(output)).reshape(self.heads, self.word)
        strengths = 1 + jax.nn.softplus(dense(self.heads, name="strengths")(output))
        gates = jax.nn.sigmoid(dense(self.heads, name="gates")(output))[:, None]

        cleared = _smallest(memory.usage, self.heads).astype(memory.contents.dtype)
        writes = gates * memory.reads + (1 - gates) * cleared
        contents = memory.contents * (1 - jnp.sum(cleared, axis=0))[:, None] + writes.T @ keys

        reads = jax.nn.softmax(strengths[:, None] * _cosine(keys, contents))
        usage = self.usage_decay * memory.usage + jnp.sum(reads + writes, axis=0)
        return Slots(controller, contents, reads, usage), jnp.concatenate([output, (reads @ contents).ravel()])


class Past(NamedTuple):
    """What an attentive memory keeps of every step so far."""

    keys: jax.Array
    """[layers, context, width]."""
    values: jax.Array
    """[layers, context, width]."""
    time: jax.Array
    """[] int32, steps so far."""


class Attentive(Memory):
    """Causal attention over all steps of a trial, whose keys and values are kept, so that a step costs O(context).

    After Mishra et al. (2018, SNAIL), with attention alone, and residual layers as in Vaswani et al. (2017). Steps
    beyond the context are not kept.

    Attributes:
      outputs: N, how many numbers the policy needs.
      width: numbers of a key, a value and a layer's output; a multiple of `heads`.
      layers: layers of attention, each followed by a perceptron of one hidden layer.
      heads: attention heads of a layer.
      context: steps that can be kept, at least those of a trial.
    """

    outputs: int
    width: int
    layers: int
    heads: int
    context: int

    def initial_memory(self):
        """No step is kept."""
        kept = jnp.zeros((self.layers, self.context, self.width))
        return Past(kept, kept, jnp.zeros((), jnp.int32))

    @nn.compact
    def unroll(self, memory, features):
        """Keeps these steps, each of which attends to all up to it."""
        steps = len(features)
        time = memory.time + jnp.arange(steps)
        place = nn.Embed(self.context, self.width, name="place", param_dtype=float_dtype())(
            jnp.minimum(time, self.context - 1)
        )
        stream = dense(self.width, name="embedding")(features) + place
        seen = jnp.arange(self.context) <= time[:, None]
        keys, values = memory.keys, memory.values
        for layer in range(self.layers):
            normal = layer_norm(f"norm_{layer}")(stream)
            query, key, value = jnp.split(dense(3 * self.width, name=f"attention_{layer}")(normal), 3, axis=-1)
            keys, values = keys.at[layer, time].set(key), values.at[layer, time].set(value)
            by_head = (-1, self.heads, self.width // self.heads)
            fit = jnp.einsum("thd,chd->htc", query.reshape(by_head), keys[layer].reshape(by_head))
            weight = jax.nn.softmax(jnp.where(seen, fit / jnp.sqrt(by_head[2]), -jnp.inf))
            attended = jnp.einsum("htc,chd->thd", weight, values[layer].reshape(by_head)).reshape(steps, self.width)
            stream += dense(self.width, name=f"mix_{layer}")(attended)
            normal = layer_norm(f"second_norm_{layer}")(stream)
            hidden = nn.relu(dense(2 * self.width, name=f"hidden_{layer}")(normal))
            stream += dense(self.width, name=f"out_{layer}")(hidden)
        output = layer_norm("norm")(stream)
        return Past(keys, values, memory.time + steps), *_policy_and_value(self.outputs, output)


def remembering(variables: Params, path: tuple[str, ...], span: int) -> Params:
    """Sets a cell's gates so that its units forget, at first, within 2 to `span` steps, spread evenly.

    With biases of zero a gate is half open and a unit forgets within a few steps, so that no gradient says what a long
    memory would be good for.

    Args:
      variables: of a network.
      path: of its GRU or LSTM cell among the parameters.
      span: in steps; at 2 or fewer every gate is half open, as with biases of zero.

    Returns:
      The variables with other biases of the gates.

    Reference: Tallec and Ollivier (2018), chrono initialisation.
    """
    variables = jax.tree.map(lambda leaf: leaf, variables)  # a copy of the nested dictionaries
    cell = functools.reduce(operator.getitem, path, variables["params"])
    kept, taken_in = ("hf", "hi") if "hf" in cell else ("iz", None)
    bias = jnp.log(jnp.linspace(1.0, max(span - 1.0, 1.0), cell[kept]["bias"].size))
    cell[kept]["bias"] = bias
    if taken_in:  # a GRU takes in what it does not keep
        cell[taken_in]["bias"] = -bias
    return variables


def _over_time(cell: type[nn.Module]):
    """A cell that maps (memory, features [T, F]) to the memory and outputs [T, ...]."""
    return nn.scan(cell, variable_broadcast="params", split_rngs={"params": False})


def _policy_and_value(outputs: int, features: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The last layers, [T, D] to numbers [T, N], near zero at first, and values [T]."""
    numbers = dense(outputs, kernel_init=nn.initializers.orthogonal(0.01), name="head")(features)
    value = dense(1, kernel_init=nn.initializers.orthogonal(1.0), name="head_value")(features)
    return numbers, value[:, 0]


def _smallest(values: jax.Array, count: int) -> jax.Array:
    """Where the smallest of values [S] are, [count, S] bool, the smallest first, of equals the earlier.

    By ranks, each a sum of comparisons: faster than `top_k`, which devices that tasks are spread over would not do each
    on its own.
    """
    place = jnp.arange(values.shape[0])
    earlier = (values == values[:, None]) & (place < place[:, None])
    rank = jnp.sum((values < values[:, None]) | earlier, axis=1)
    return rank == jnp.arange(count)[:, None]


def _cosine(keys: jax.Array, contents: jax.Array) -> jax.Array:
    """Cosine of the angle between every key [H, W] and slot [S, W], [H, S]; 0, with a finite derivative, to nothing."""

    def direction(vectors):
        return vectors * jax.lax.rsqrt(jnp.sum(vectors**2, axis=-1, keepdims=True) + 1e-12)

    return direction(keys) @ direction(contents).T

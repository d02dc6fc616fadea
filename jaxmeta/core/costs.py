"""What a computation costs, read off its jaxpr: XLA's own count takes a loop's body once, however often it runs."""

import math
import re
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
from jax.core import ShapedArray
from jax.extend import core


def flops(function: Callable[..., Any], *arguments: Any) -> float:
    """Floating-point operations of one call: 2 m n k of every matrix product, times the length of the loops around it.

    Element-wise work and convolutions are not counted; a `while` loop, whose length is not known, counts once, and a
    conditional with all its branches.

    >>> import jax.numpy as jnp
    >>> flops(lambda a, b: a @ b, jnp.ones((2, 3)), jnp.ones((3, 4)))
    48.0
    """
    # A jitted function is traced as it stands: compiler options of its own may not be nested in another one.
    jitted: Any = function if hasattr(function, "trace") else jax.jit(function)
    return _count(jitted.trace(*arguments).jaxpr.jaxpr)


def _count(jaxpr: core.Jaxpr) -> float:
    total = 0.0
    for equation in jaxpr.eqns:
        if equation.primitive.name == "dot_general":
            total += _product(equation)
            continue
        times = equation.params["length"] if equation.primitive.name == "scan" else 1
        total += times * sum(_count(inner) for inner in _inner_jaxprs(equation.params))
    return total


def _product(equation: core.JaxprEqn) -> float:
    (contracted, _), _ = equation.params["dimension_numbers"]
    left, product = equation.invars[0].aval, equation.outvars[0].aval
    assert isinstance(left, ShapedArray)
    assert isinstance(product, ShapedArray)
    return 2.0 * math.prod(product.shape) * math.prod(left.shape[axis] for axis in contracted)


def _inner_jaxprs(params: dict[str, Any]) -> Iterator[core.Jaxpr]:
    for value in params.values():
        for item in value if isinstance(value, tuple | list) else (value,):
            if isinstance(item, core.ClosedJaxpr):
                yield item.jaxpr
            elif isinstance(item, core.Jaxpr):
                yield item


class Exchange(NamedTuple):
    """What devices exchange at one place of a compiled program."""

    kind: str
    """`all-reduce`, `all-gather`, `all-to-all`, `collective-permute` or `reduce-scatter`."""
    dtypes: tuple[str, ...]
    """Of its results, as XLA names them."""
    numbers: int
    """How many it results in on each device."""
    bytes: int
    where: str
    """The operations of the source that it stems from, and the loops around them."""


_EXCHANGE = re.compile(r"= (.*?) (all-reduce|all-gather|all-to-all|collective-permute|reduce-scatter)(?:-start)?\((.*)")


def exchanges(program: str) -> list[Exchange]:
    """What devices exchange, read from the text of a compiled program, `lowered.compile().as_text()`.

    >>> line = '%r = (f32[3,2]{1,0}, f32[]) all-reduce(%a, %b), metadata={op_name="jit(f)/reduce_sum"}'
    >>> exchanges(line)
    [Exchange(kind='all-reduce', dtypes=('f32', 'f32'), numbers=7, bytes=28, where='jit(f)/reduce_sum')]
    """
    found = []
    for results, kind, rest in _EXCHANGE.findall(program):
        shapes = re.findall(r"([a-z]+\d*)\[([\d,]*)\]", results)
        sizes = [math.prod(int(side) for side in sides.split(",") if side) for _, sides in shapes]
        widths = [max(1, int(re.sub(r"\D", "", dtype) or 8) // 8) for dtype, _ in shapes]
        where = re.search(r'op_name="([^"]*)"', rest)
        found.append(
            Exchange(
                kind,
                tuple(dtype for dtype, _ in shapes),
                sum(sizes),
                sum(size * width for size, width in zip(sizes, widths, strict=True)),
                where.group(1) if where else "",
            )
        )
    return found

"""How updates of recurrent learners are timed and told of, the same for every contender."""

import time
from collections.abc import Callable
from typing import Any

import jax
from wire import peak_megabytes, serve


def serve_updates(build: Callable, **handlers: Callable[..., dict[str, Any]]) -> None:
    """Answers `prepare` and `update`, and what else is given.

    Args:
      build: of the arguments of `prepare`, gives `init(key)`, `update(key, state)`, which returns the state and the
        mean return of a trial, and `params_of(state)`.
      **handlers: further ones.
    """
    kept: dict[str, Any] = {}

    def prepare(seed: int, **arguments: Any) -> dict[str, Any]:
        """Builds the programs and draws the network; the update is not compiled yet."""
        init, update, params_of = build(**arguments)
        state = jax.jit(init)(jax.random.key(seed))
        kept.update(update=jax.jit(update), state=state, key=jax.random.key(seed + 1))
        return {"jax": jax.__version__, "parameters": sum(leaf.size for leaf in jax.tree.leaves(params_of(state)))}

    def update() -> dict[str, Any]:
        """One update from where the last one ended, timed."""
        kept["key"], key = jax.random.split(kept["key"])
        start = time.perf_counter()
        kept["state"], reward = jax.block_until_ready(kept["update"](key, kept["state"]))
        return {"seconds": time.perf_counter() - start, "return": float(reward), "peak_megabytes": peak_megabytes()}

    serve({"prepare": prepare, "update": update, **handlers})

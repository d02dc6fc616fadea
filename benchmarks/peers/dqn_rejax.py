"""DQN on CartPole-v1 by rejax, without the evaluations that it makes while it trains."""

# pyright: reportMissingImports=false
import time
from typing import Any

import jax
import jax.numpy as jnp
from rejax import DQN
from rejax.evaluate import evaluate
from wire import peak_megabytes, serve

programs: dict[str, Any] = {}


def prepare(settings: dict[str, Any], episodes: int, horizon: int) -> dict[str, Any]:
    """Builds the programs; nothing is compiled yet."""
    given = {**settings, "eval_freq": settings["total_timesteps"], "skip_initial_evaluation": True}
    algorithm = DQN.create(env="CartPole-v1", agent="DuelingQNetwork", agent_kwargs={"activation": "swish"}, **given)
    algorithm = algorithm.replace(eval_callback=lambda algorithm, state, key: None)

    def returns_of(key, params):
        def act(observation, key):
            del key
            return jnp.argmax(algorithm.agent.apply(params, observation[None])[0])

        return evaluate(act, key, algorithm.env, algorithm.env_params, episodes, horizon)[1]

    programs["train"] = jax.jit(algorithm.train)
    programs["returns_of"] = jax.jit(returns_of)
    return {"jax": jax.__version__}


def train(seed: int) -> dict[str, Any]:
    """A whole training, timed, and the greedy returns of what it arrives at, not timed."""
    train_key, test_key = jax.random.split(jax.random.key(seed))
    start = time.perf_counter()
    state, _ = jax.block_until_ready(programs["train"](train_key))
    seconds = time.perf_counter() - start
    returns = programs["returns_of"](test_key, state.q_ts.params)
    return {
        "seconds": seconds,
        "return": float(jnp.mean(returns)),
        "updates": int(state.q_ts.step),
        "env_steps": int(state.global_step),
        "peak_megabytes": peak_megabytes(),
    }


if __name__ == "__main__":
    serve({"prepare": prepare, "train": train})

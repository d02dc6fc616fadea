"""DQN on CartPole-v1 by rejax, without the evaluations that it makes while it trains."""

# pyright: reportMissingImports=false
from typing import Any

import jax
import jax.numpy as jnp
from dqn import timed_training
from rejax import DQN
from rejax.evaluate import evaluate
from wire import serve

programs: dict[str, Any] = {}


def prepare(settings: dict[str, Any], episodes: int, horizon: int) -> dict[str, Any]:
    """Builds the programs; nothing is compiled yet."""
    given = {**settings, "eval_freq": settings["total_timesteps"], "skip_initial_evaluation": True}
    algorithm = DQN.create(env="CartPole-v1", agent="DuelingQNetwork", agent_kwargs={"activation": "swish"}, **given)
    algorithm = algorithm.replace(eval_callback=lambda algorithm, state, key: None)

    def returns_of(key, arrived):
        params = arrived[0].q_ts.params

        def act(observation, key):
            del key
            return jnp.argmax(algorithm.agent.apply(params, observation[None])[0])

        return evaluate(act, key, algorithm.env, algorithm.env_params, episodes, horizon)[1]

    def counts(arrived):
        return {"updates": int(arrived[0].q_ts.step), "env_steps": int(arrived[0].global_step)}

    programs.update(train=jax.jit(algorithm.train), returns_of=jax.jit(returns_of), counts=counts)
    return {"jax": jax.__version__}


def train(seed: int) -> dict[str, Any]:
    """A whole training."""
    return timed_training(seed, **programs)


if __name__ == "__main__":
    serve({"prepare": prepare, "train": train})

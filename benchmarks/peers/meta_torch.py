"""What the workers in PyTorch share: meta-parameters, a meta-step on their gradient, and what they answer."""

# pyright: reportMissingImports=false
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from wire import peak_megabytes, serve


class Worker:
    """Meta-parameters, their optimizer, and the settings of a meta-step.

    Args:
      settings: complete, by path.
      horizon: steps of an episode.
      inputs: a file with `params/...` and `goals`, and with the draws that are given for a comparison.
    """

    def __init__(self, settings: dict[str, Any], horizon: int, inputs: str):
        self.s, self.horizon = settings, horizon
        given = np.load(inputs)
        self.given = {name: torch.tensor(given[name]) for name in given.files}
        self.params = {name[7:]: leaf for name, leaf in self.given.items() if name.startswith("params/")}
        for leaf in self.params.values():
            leaf.requires_grad_()
        self.optimizer = torch.optim.Adam(self.params.values(), lr=settings["outer.learning_rate"])

    def meta_loss(self, given: bool) -> torch.Tensor:
        """The loss of all tasks, under fresh draws or under those that were given."""
        raise NotImplementedError

    def meta_step(self) -> None:
        """A meta-step of Adam on the clipped meta-gradient."""
        self.optimizer.zero_grad()
        self.meta_loss(given=False).backward()
        torch.nn.utils.clip_grad_norm_(self.params.values(), self.s["outer.max_gradient_norm"])
        self.optimizer.step()

    def gradient(self) -> dict[str, np.ndarray]:
        """The meta-gradient under the draws that were given, before it is clipped."""
        self.optimizer.zero_grad()
        self.meta_loss(given=True).backward()
        return {name: leaf.grad.numpy() for name, leaf in self.params.items()}


def returns_to_go(reward: torch.Tensor, weight: torch.Tensor | float) -> torch.Tensor:
    """Sum of the rewards from each step on, [N, T, envs], each step's rest weighted by `weight`, of that shape or 1."""
    weights = torch.as_tensor(weight).expand_as(reward).unbind(1)
    total, found = torch.zeros_like(reward[:, 0]), []
    for now, left in zip(reversed(reward.unbind(1)), reversed(weights), strict=True):
        total = now + left * total
        found.append(total)
    return torch.stack(found[::-1], dim=1)


def serve_worker(make: Callable[..., Worker]) -> None:
    """Answers `prepare`, `gradient` and `meta_step` with the worker that `make` builds."""
    kept: dict[str, Any] = {}

    def prepare(threads: int, **arguments: Any) -> dict[str, Any]:
        """Builds a worker; 0 threads stands for as many as PyTorch takes by itself."""
        if threads:
            torch.set_num_threads(threads)
        kept["worker"] = make(**arguments)
        return {"torch": torch.__version__, "threads": torch.get_num_threads()}

    def gradient(path: str) -> dict[str, Any]:
        np.savez(path, **kept["worker"].gradient())
        return {}

    def meta_step() -> dict[str, Any]:
        """One meta-step from where the last one ended, timed."""
        start = time.perf_counter()
        kept["worker"].meta_step()
        return {"seconds": time.perf_counter() - start, "peak_megabytes": peak_megabytes()}

    serve({"prepare": prepare, "gradient": gradient, "meta_step": meta_step})

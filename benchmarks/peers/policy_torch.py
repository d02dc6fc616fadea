"""A meta-step of MAML over policy gradients on 2-D navigation in plain PyTorch, with torch.func for the inner gradient.

The work is that of `fused_policy.py`. Tensors run over tasks, steps and environments; only the environment steps are a
loop in Python.
"""

# pyright: reportMissingImports=false
import math
from typing import Any

import meta_torch
import torch
from meta_torch import returns_to_go
from torch.func import grad

Net = dict[str, torch.Tensor]


class Worker(meta_torch.Worker):
    """MAML over policy gradients in a plane.

    Args:
      settings: complete, by path.
      horizon: steps of an episode.
      inputs: a file with parameters, goals [tasks, 2], and the noise of the actions, [tasks, T, envs, 2].
      speed: length of a step along each axis, at most.
      tolerance: how close to the goal an episode ends.
      ridge: mean square that the baseline's normal equations are raised by.
    """

    def __init__(self, settings: dict[str, Any], horizon: int, inputs: str, **constants: float):
        super().__init__(settings, horizon, inputs)
        self.goals = self.given["goals"].unsqueeze(1)
        self.speed, self.tolerance, self.ridge = (constants[name] for name in ("speed", "tolerance", "ridge"))

    @staticmethod
    def mean(net: Net, position: torch.Tensor) -> torch.Tensor:
        """Of the Gaussian policy, in units of the speed, [tasks, N, 2]; every task has a net of its own."""
        for layer in ("torso_0", "torso_1"):
            position = torch.tanh(torch.baddbmm(net[f"{layer}/bias"].unsqueeze(1), position, net[f"{layer}/kernel"]))
        return torch.baddbmm(net["head/bias"].unsqueeze(1), position, net["head/kernel"])

    def log_prob(self, net: Net, position: torch.Tensor, action: torch.Tensor) -> torch.Tensor:
        """[tasks, T, envs], of positions and actions [tasks, T, envs, 2]."""
        log_scale = net["head_log_scale"].view(-1, 1, 1, 2)
        mean = self.mean(net, position.flatten(1, 2)).view_as(action)
        distance = (action / self.speed - mean) * torch.exp(-log_scale)
        return -(0.5 * distance**2 + log_scale + math.log(self.speed) + 0.5 * math.log(2 * math.pi)).sum(-1)

    @torch.no_grad()
    def play(self, net: Net, envs: int, steps: int, noise: torch.Tensor | None):
        """Positions, actions, rewards, and whether an episode ended, leaves [tasks, steps, envs, ...]."""
        if noise is None:
            noise = torch.randn(len(self.goals), steps, envs, 2)
        scaled = noise * net["head_log_scale"].exp().view(-1, 1, 1, 2)
        position = torch.zeros(len(self.goals), envs, 2)
        time = torch.zeros(len(self.goals), envs, dtype=torch.long)
        seen = []
        for step in range(steps):
            action = (self.mean(net, position) + scaled[:, step]) * self.speed
            moved = position + action.clamp(-self.speed, self.speed)
            left = moved - self.goals
            time = time + 1
            ended = (left.abs() < self.tolerance).all(-1) | (time >= self.horizon)
            seen.append((position, action, -torch.linalg.vector_norm(left, dim=-1), ended))
            position, time = moved * ~ended.unsqueeze(-1), time * ~ended
        return tuple(torch.stack(leaves, dim=1) for leaves in zip(*seen, strict=True))

    @torch.no_grad()
    def advantages(self, position: torch.Tensor, reward: torch.Tensor, ended: torch.Tensor, start: torch.Tensor):
        """Normalised within a task, against a linear baseline fitted to the returns, [tasks, T, envs]."""
        steps = reward.shape[1]
        time = (2 * (torch.arange(steps).view(-1, 1) - start) / steps - 1).unsqueeze(-1)
        curves = (torch.ones_like(time), time, 1.5 * time**2 - 0.5, 2.5 * time**3 - 1.5 * time)
        regressors = torch.cat([position, position**2, *curves], dim=-1)
        rows, weight = regressors.flatten(1, 2), self.s["agent.discount"] * ~ended
        normal = rows.mT @ rows + self.ridge * rows.shape[1] * torch.eye(rows.shape[2])
        right = rows.mT @ returns_to_go(reward, weight).flatten(1).unsqueeze(-1)
        value = (rows @ torch.cholesky_solve(right, torch.linalg.cholesky(normal))).view_as(reward)
        following = torch.cat([value[:, 1:], torch.zeros_like(value[:, :1])], dim=1)
        advantage = returns_to_go(reward + weight * following - value, weight * self.s["agent.gae_lambda"])
        spread, mean = torch.std_mean(advantage, dim=(1, 2), correction=0, keepdim=True)
        return (advantage - mean) / (spread + 1e-8)

    def inner_loss(self, net: Net, position, action, start, advantage) -> torch.Tensor:
        """Minus DiCE's surrogate, a mean within each task and summed over them, which share no parameters."""
        log_prob = self.log_prob(net, position, action)
        log_ratio = log_prob - log_prob.detach()
        before = log_ratio.cumsum(1) - log_ratio
        before = before - before.gather(1, start)
        return -(before.exp() * log_ratio.expm1() * advantage).mean((1, 2)).sum()

    def adapt(self, net: Net, noise: torch.Tensor | None) -> Net:
        """One gradient step on a round of its own."""
        envs, steps = self.s["adaptation.num_envs"], self.s["adaptation.rollout_length"]
        position, action, reward, ended = self.play(net, envs, steps, noise)
        first = torch.cat([torch.ones_like(ended[:, :1]), ended[:, :-1]], dim=1)
        start = torch.cummax(torch.arange(steps).view(-1, 1) * first, dim=1).values
        advantage = self.advantages(position, reward, ended, start)
        gradient = grad(self.inner_loss)(net, position, action, start, advantage)
        return {name: leaf - self.s["inner.learning_rate"] * gradient[name] for name, leaf in net.items()}

    def score(self, net: Net, noise: torch.Tensor | None) -> torch.Tensor:
        """The policy-gradient loss of adapted parameters, [tasks]."""
        queries = self.s["objective.num_query_envs"]
        position, action, reward, ended = self.play(net, queries, self.horizon, noise)
        returns = returns_to_go(reward, self.s["objective.outer_discount"] * ~ended)
        advantage = returns - (returns.sum(-1, keepdim=True) - returns) / (queries - 1)
        entropy = net["head_log_scale"].sum(-1)  # and a constant
        surrogate = (self.log_prob(net, position, action) * advantage).mean((1, 2))
        return -self.horizon * (surrogate + self.s["objective.entropy"] * entropy)

    def meta_loss(self, given: bool) -> torch.Tensor:
        """The loss of all tasks; the actions' noise is drawn or given."""
        noise, query_noise = (self.given[name] if given else None for name in ("noise", "query_noise"))
        net = {name: leaf.expand(len(self.goals), *leaf.shape) for name, leaf in self.params.items()}
        return self.score(self.adapt(net, noise), query_noise).mean()


if __name__ == "__main__":
    meta_torch.serve_worker(Worker)

"""A meta-step of MAML over DQN on GridNavi in plain PyTorch, with torch.func for the inner gradients.

The work is that of `fused.py`, for rounds of one episode, which all begin and end together. Tensors run over lives
(tasks x lives of each), and the environments of a life; only the environment steps are a loop in Python. The replay is
the list of the rounds so far, so that an early round costs less, as it does in the engine.
"""

# pyright: reportMissingImports=false
import math
from typing import Any

import meta_torch
import torch
from meta_torch import returns_to_go
from torch.func import grad

LAYERS = ("torso_0", "torso_1", "head")
MOVES = torch.tensor([[0, 0], [0, 1], [1, 0], [0, -1], [-1, 0]])

Net = dict[str, torch.Tensor]


def action_values(net: Net, observation: torch.Tensor) -> torch.Tensor:
    """Of every life, each with a net of its own, [lives, N, A]."""
    for layer in LAYERS:
        observation = torch.baddbmm(net[f"{layer}/bias"].unsqueeze(1), observation, net[f"{layer}/kernel"])
        if layer != "head":
            observation = torch.relu(observation)
    return observation


def sample(logits: torch.Tensor) -> torch.Tensor:
    return torch.argmax(logits - torch.empty_like(logits).exponential_().log(), dim=-1)


def chosen_of(values: torch.Tensor, action: torch.Tensor) -> torch.Tensor:
    return values.gather(-1, action.unsqueeze(-1)).squeeze(-1)


class Worker(meta_torch.Worker):
    """MAML over DQN on a grid of `size` times `size` cells."""

    def __init__(self, settings: dict[str, Any], horizon: int, size: int, inputs: str):
        super().__init__(settings, horizon, inputs)
        self.size = size
        self.given_actions = [self.given[name].long() for name in ("explored", "queried")]
        self.goals = self.given["goals"].long()

    @torch.no_grad()
    def play(self, logits_of, goals: torch.Tensor, envs: int, given: torch.Tensor | None):
        """An episode in `envs` environments of every life; leaves [lives, T, envs, ...].

        Args:
          logits_of: of (observation, previous action, step): what is kept of it, and the logits to draw from.
          goals: [lives, 1, 2].
          envs: environments of a life.
          given: actions to take instead of drawn ones, [lives, T, envs], or None.
        """
        position = torch.zeros(len(goals), envs, 2, dtype=torch.long)
        action = torch.zeros(len(goals), envs, dtype=torch.long)
        seen = []
        for step in range(self.horizon):
            cell = position[..., 1] * self.size + position[..., 0]
            observation = torch.nn.functional.one_hot(cell, self.size**2).float()
            noted, logits = logits_of(observation, action, step)
            action = sample(logits) if given is None else given[:, step]
            position = (position + MOVES[action]).clamp(0, self.size - 1)
            reward = torch.where((position == goals).all(-1), 1.0, -0.1)
            seen.append((observation, noted, action, reward))
        cell = position[..., 1] * self.size + position[..., 0]
        last = torch.nn.functional.one_hot(cell, self.size**2).float()
        return (*(torch.stack(leaves, dim=1) for leaves in zip(*seen, strict=True)), last)

    def exploring_logits(self, greedy: torch.Tensor, previous: torch.Tensor, stickiness, epsilon: float):
        """Logits that mix a greedy distribution with sticky draws from the exploration logits."""
        exploration = self.params["exploration"]
        repeated = torch.nn.functional.one_hot(previous, exploration.numel())
        drawn = torch.log(stickiness * repeated + (1 - stickiness) * torch.softmax(exploration, -1))
        return torch.logaddexp(math.log1p(-epsilon) + greedy, math.log(epsilon) + drawn)

    def explore(self, net: Net, goals: torch.Tensor, epsilon: float, given: torch.Tensor | None):
        """A round: the experience to learn from, leaves [lives, T * envs, ...], and its log-probability, [lives]."""
        envs, stickiness, discount = self.s["adaptation.num_envs"], self.s["agent.stickiness"], self.s["agent.discount"]

        def logits_of(observation, previous, step):
            greedy = torch.log_softmax(action_values(net, observation) / self.s["agent.temperature"], -1)
            return greedy, self.exploring_logits(greedy, previous, stickiness if step else 0.0, epsilon)

        observation, greedy, action, reward, last = self.play(logits_of, goals, envs, given)
        previous = torch.cat([torch.zeros_like(action[:, :1]), action[:, :-1]], dim=1)
        sticky = torch.full((self.horizon, 1, 1), stickiness)
        sticky[0] = 0.0
        log_probs = torch.log_softmax(self.exploring_logits(greedy, previous, sticky, epsilon), -1)
        to_go = returns_to_go(reward, discount)
        weight = discount ** torch.arange(self.horizon, 0, -1).float()
        batch = (
            observation.flatten(1, 2),
            action.flatten(1, 2),
            to_go.flatten(1, 2),
            weight.repeat_interleave(envs).expand(len(goals), -1),
            last.unsqueeze(1).expand_as(observation).flatten(1, 2),
        )
        return batch, chosen_of(log_probs, action).sum((1, 2))

    @staticmethod
    def inner_loss(net: Net, slow: Net, observation, action, to_go, weight, last) -> torch.Tensor:
        """Double Q-learning's squared error, a mean within each life and summed over them, which share no parameters.

        Only the derivative in `net` is an inner gradient.
        """
        best = torch.argmax(action_values(net, last), -1)
        target = to_go + weight * chosen_of(action_values(slow, last), best)
        return 0.5 * torch.mean((target - chosen_of(action_values(net, observation), action)) ** 2, dim=1).sum()

    def adapt(self, net: Net, batch: tuple[torch.Tensor, ...]) -> Net:
        """The inner gradient steps of all lives."""
        limit = self.s["inner.max_gradient_norm"]
        for _ in range(self.s["inner.num_steps"]):
            gradients = grad(self.inner_loss)(net, net, *batch)
            scale = self.s["inner.learning_rate"] * torch.ones(len(batch[0]))
            if limit:
                squared = sum(leaf.flatten(1).square().sum(1) for leaf in gradients.values())
                scale = scale * limit / torch.sqrt(torch.clamp(squared, min=limit**2))
            net = {name: leaf - scale.view(-1, *[1] * (leaf.dim() - 1)) * gradients[name] for name, leaf in net.items()}
        return net

    def score(self, net: Net, goals: torch.Tensor, given: torch.Tensor | None):
        """The policy-gradient loss of adapted parameters, and the mean return of an episode, [lives] each."""
        temperature, queries = self.s["agent.temperature"], self.s["objective.num_query_envs"]

        def logits_of(observation, previous, step):
            logits = action_values(net, observation) / temperature
            return logits, logits

        observation, _, action, reward, _ = self.play(logits_of, goals, queries, given)
        to_go = returns_to_go(reward, self.s["objective.outer_discount"])
        advantage = to_go - (to_go.sum(-1, keepdim=True) - to_go) / (queries - 1)
        values = action_values(net, observation.flatten(1, 2)).unflatten(1, (self.horizon, queries))
        log_probs = torch.log_softmax(values / temperature, -1)
        entropy = -(log_probs.exp() * log_probs).sum(-1)
        surrogate = -chosen_of(log_probs, action) * advantage
        loss = self.horizon * (surrogate - self.s["objective.entropy"] * entropy).mean((1, 2))
        return loss, reward.sum(1).mean(1)

    def meta_loss(self, given: bool) -> torch.Tensor:
        """The loss of all tasks; actions are drawn, or given, [tasks, lives, rounds, T, envs]."""
        lives, rounds = self.s["objective.lifetimes_per_task"], self.s["adaptation.num_adaptations"]
        goals = self.goals.repeat_interleave(lives, 0).unsqueeze(1)
        network = {name: leaf for name, leaf in self.params.items() if name != "exploration"}
        net = {name: leaf.expand(len(goals), *leaf.shape) for name, leaf in network.items()}
        replay, scores, explored, returns = [], [], [], []
        epsilon = self.s["agent.epsilon"]
        for index in range(rounds):
            actions = [leaf.flatten(0, 1)[:, index] if given else None for leaf in self.given_actions]
            batch, log_prob = self.explore(net, goals, epsilon, actions[0])
            replay.append(batch)
            net = self.adapt(net, tuple(torch.cat(leaves, dim=1) for leaves in zip(*replay, strict=True)))
            loss, episode = self.score(net, goals, actions[1])
            scores.append(loss)
            explored.append(log_prob)
            returns.append(episode)
            epsilon *= self.s["agent.epsilon_decay"]
        following = torch.stack(returns).div(rounds).flip(0).cumsum(0).flip(0).view(rounds, -1, lives)
        advantage = following - (following.sum(-1, keepdim=True) - following) / (lives - 1)
        credit = (torch.stack(explored).view(rounds, -1, lives) * advantage).sum(0).mean()
        return torch.stack(scores).mean() - credit


if __name__ == "__main__":
    meta_torch.serve_worker(Worker)

"""The static choices: whatever sets a shape, a loop's length or picks code. What multiplies is in `types.Hypers`.

Each group is a frozen record that checks itself by the types of its fields. Field names are unique across groups, so
that a user sets any of them by its bare name (`--set rounds=3`, `make_recipe(..., rounds=3)`).
"""

import functools
import operator
from collections.abc import Callable
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, inspect

from jaxmeta.core.errors import as_kind, require, require_finite, require_known

Count = Annotated[int, Meta(ge=1)]
Natural = Annotated[int, Meta(ge=0)]
Fraction = Annotated[float, Meta(ge=0, le=1)]
NonNegative = Annotated[float, Meta(ge=0)]
Positive = Annotated[float, Meta(gt=0)]
BOUNDS = {
    "gt": (">", "above", operator.gt),
    "ge": (">=", "at least", operator.ge),
    "lt": ("<", "below", operator.lt),
    "le": ("<=", "at most", operator.le),
}
"""By name of a bound: its sign, what a sentence says, and what holds of a value and the limit."""


class Config(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A frozen record whose values are of the types of its fields, and within their bounds."""

    def __post_init__(self):
        for name, kind in kinds(type(self)).items():
            msgspec.structs.force_setattr(self, name, checked(name, getattr(self, name), kind))


@functools.cache
def kinds(config: type[Config]) -> dict[str, inspect.Type]:
    """By field, what values it takes."""
    return {field.name: inspect.type_info(field.type) for field in msgspec.structs.fields(config)}


def checked(name: str, value: Any, kind: inspect.Type) -> Any:
    """The value as one of its kind.

    Raises:
      UsageError: it is none.
    """
    match kind:
        case inspect.BoolType():
            return as_kind(name, value, bool)
        case inspect.LiteralType(values=known):
            require_known(name, as_kind(name, value, str), map(str, known))
        case inspect.VarTupleType(item_type=item):
            value = as_kind(name, value, tuple)
            for _, words, holds, limit in _limits(item):
                require(all(holds(entry, limit) for entry in value), name, f"hold integers of {words} {limit}", value)
        case inspect.IntType() | inspect.FloatType():
            value = as_kind(name, value, int if isinstance(kind, inspect.IntType) else float)
            require_finite(name, value)
            for _, words, holds, limit in _limits(kind):
                require(holds(value, limit), name, f"be {words} {limit}", value)
    return value


def spelled(kind: inspect.Type) -> str:
    """What values a field takes, in a few words.

    >>> spelled(kinds(LifetimeConfig)["envs"]), spelled(kinds(HyperConfig)["discount"])
    ('integer >= 1', 'number >= 0 <= 1')
    """
    match kind:
        case inspect.BoolType():
            return "true, false"
        case inspect.LiteralType(values=known):
            return ", ".join(map(str, known))
        case inspect.VarTupleType(item_type=item):
            return f"integers {_signs(item)}"
        case inspect.IntType():
            return f"integer {_signs(kind)}"
    return f"number {_signs(kind)}"


def _signs(kind: inspect.Type) -> str:
    return " ".join(f"{sign} {limit}" for sign, _, _, limit in _limits(kind))


def _limits(kind: inspect.Type) -> list[tuple[str, str, Callable[[float, float], bool], float]]:
    """The bounds that a field has, as `BOUNDS` tells them, each with its limit."""
    limits = {bound: getattr(kind, bound) for bound in BOUNDS}
    return [(*BOUNDS[bound], limit) for bound, limit in limits.items() if limit is not None]


class LifetimeConfig(Config, frozen=True, kw_only=True):
    """How long a lifetime is: `rounds` times (`steps` steps in each of `envs` environments, then one adaptation)."""

    envs: Count = 16
    """Environments of the same task, side by side."""
    steps: Natural = 0
    """Steps of a round in each environment; 0 stands for the task family's horizon, one episode."""
    rounds: Count = 3
    """Rounds of acting, each followed by one adaptation."""


class AgentConfig(Config, frozen=True, kw_only=True):
    """An agent's network and loss."""

    agent: Literal["dqn", "tabular_q", "actor_critic"] = "dqn"
    """`dqn`, `tabular_q` for one-hot or discrete observations, or `actor_critic`, which alone can act continuously."""
    hidden: tuple[Count, ...] = (64, 64)
    """Width of each hidden layer."""
    dueling: bool = False
    """Value and advantage heads (Wang et al., 2016)."""
    double: bool = True
    """The newest parameters choose the action whose slow value is bootstrapped (van Hasselt et al., 2016)."""
    structure: bool = False
    """Hidden layers of `dqn` of which only a share takes part, which `hyper_policy` sets once for a lifetime."""
    huber: NonNegative = 0.0
    """Error beyond which the loss grows linearly; 0 is the squared loss."""


class PolicyConfig(Config, frozen=True, kw_only=True):
    """What a policy's actions are judged by."""

    estimator: Literal["naive", "dice", "lvc"] = "naive"
    """The surrogate that `actor_critic` descends on, which decides what a meta-gradient sees of how parameters changed
    the data: `naive`, `dice` or `lvc`."""
    baseline: Literal["linear", "value"] = "linear"
    """What `actor_critic` expects: `linear` in observation and time, fitted to each round, or a learned `value`."""
    normalised: bool = True
    """Scale the advantages of `actor_critic` to mean 0 and variance 1 in each round."""
    inner_entropy: NonNegative = 0.0
    """Weight of the entropy in the loss of `actor_critic`."""
    initial_scale: Positive = 1.0
    """Standard deviation of continuous actions at first, in units of half the width of their range."""
    gae_lambda: Fraction = 0.95
    """Weight of later surprises in an advantage, in [0, 1]."""
    value_weight: NonNegative = 0.5
    """Weight of the value's squared error."""


class InnerConfig(Config, frozen=True, kw_only=True):
    """How a learner turns a round's experience into new parameters."""

    inner_steps: Count = 1
    """Gradient steps after each round."""
    inner_optimizer: Literal["sgd", "adam", "rmsprop"] = "sgd"
    """`sgd`, or `adam` or `rmsprop` where nothing differentiates through the adaptation."""
    max_inner_norm: NonNegative = 0.0
    """Inner gradients are scaled down to this global norm; 0 leaves them as they are."""
    batch_size: Natural = 0
    """Transitions of a gradient step, drawn from the replay buffer; 0 uses the whole buffer."""
    replay_rounds: Count = 1
    """Rounds that the replay ring buffer holds."""
    n_step: Natural = 0
    """Rewards summed before a value is bootstrapped; 0 sums to the end of the episode or the round (Monte Carlo)."""
    mixed_targets: bool = False
    """Mix targets of one step with those of `n_step`, by the hyper-parameter `mixing`."""
    remat: bool = False
    """Recompute each inner step, and each round of a long lifetime, in the backward pass instead of storing it: less
    memory, more time."""
    nested_remat: bool = False
    """Recompute at two levels: memory grows with the square root of the number of steps, at two more passes through
    each loop where `remat` takes one."""


class OuterConfig(Config, frozen=True, kw_only=True):
    """How meta-parameters are scored and updated."""

    meta_steps: Count = 1000
    """Meta-steps of a whole run."""
    tasks_per_batch: Count = 20
    """Tasks of a meta-step."""
    lives_per_task: Count = 1
    """Independent lifetimes of each task."""
    sampling_correction: bool = True
    """Credit how a lifetime explored by the returns that adaptation then led to, held against those of the task's other
    lives: it takes `lives_per_task` of 2 or more, of a single life nothing is credited."""
    tasks_per_group: Natural = 0
    """Tasks that are vmapped together, group after group; 0 puts the whole batch into one group."""
    outer_loss: Literal["policy_gradient", "td", "monte_carlo", "return"] = "policy_gradient"
    """What adapted parameters are scored by: `policy_gradient`, `td`, `monte_carlo`, or, where no gradient is asked of
    it, `return`."""
    scored_rounds: Literal["every", "last", "before_and_every"] = "every"
    """After which rounds parameters are scored: `every`, `last`, or `before_and_every`, before the first one too."""
    query_envs: Count = 16
    """Fresh environments that each score is estimated in."""
    outer_discount: Fraction = 1.0
    """Discount of the returns that `policy_gradient` maximises; below 1, less variance, less weight on late rewards."""
    entropy: NonNegative = 0.01
    """Weight of the adapted policy's entropy in `policy_gradient`."""
    outer_update: Literal["descent", "proximal"] = "descent"
    """`descent`, one step of the optimizer a meta-step; or `proximal`, several on what was lived once, within a trust
    region, for adapted policies (`actor_critic`)."""
    outer_learning_rate: NonNegative = 1e-3
    """Step size of the outer optimizer."""
    learning_rate_left: Fraction = 1.0
    """Share of `outer_learning_rate` that is left after `meta_steps`; it falls along a line, 1 keeps it as it is."""
    max_gradient_norm: Positive = 1.0
    """Meta-gradients are scaled down to this global norm."""

    def __post_init__(self):
        super().__post_init__()
        group = self.tasks_per_group
        rule = f"be 0 or divide tasks_per_batch = {self.tasks_per_batch}"
        require(group == 0 or self.tasks_per_batch % group == 0, "tasks_per_group", rule, group)

    @property
    def scores_before(self) -> bool:
        """Whether parameters are scored before the first round too."""
        return self.scored_rounds == "before_and_every"


class EstimationConfig(Config, frozen=True, kw_only=True):
    """How the gradient of a lifetime in the meta-parameters is estimated; see `outer.gradient_estimators`."""

    outer_gradient: Literal["backpropagation", "es", "pes"] = "backpropagation"
    """`backpropagation`, `es` (antithetic evolution strategies) or `pes` (persistent ones)."""
    stretch: Natural = 0
    """Rounds of a lifetime that a meta-step lives; 0 stands for all of them. Fewer are truncated."""
    population: Annotated[int, Meta(ge=2)] = 16
    """Perturbed lives of each task under `es` and `pes`, in antithetic pairs."""
    perturbation: Positive = 0.1
    """Standard deviation of the perturbation of meta-parameters under `es` and `pes`."""

    def __post_init__(self):
        super().__post_init__()
        require(self.population % 2 == 0, "population", "be even, for antithetic pairs", self.population)


class RuleConfig(Config, frozen=True, kw_only=True):
    """The network of a learned update rule."""

    rule: Literal["structured", "recurrent", "attention"] = "structured"
    """What sets how parameters move: `structured`, per layer; `recurrent`, per parameter; or `attention`, per unit."""
    rule_base: Literal["adam", "rmsprop", "sgd"] = "adam"
    """What the rule is before it has learned: `adam`, `rmsprop` or `sgd`."""
    rule_width: Count = 8
    """Units of the `recurrent` rule's cell, numbers of a token of the `attention` rule."""
    rule_cell: Literal["gru", "lstm"] = "gru"
    """The cell of the `recurrent` rule: `gru` or `lstm`."""


class GovernorConfig(Config, frozen=True, kw_only=True):
    """A policy that sets Q-learning's hyper-parameters."""

    form: Literal["online", "schedule", "static", "constant"] = "online"
    """What it sees: `online`, how learning goes; `schedule`, how much of the lifetime has passed; `static`, a
    description of the task, which is privileged; or `constant`, nothing."""
    policy_width: Count = 16
    """Units of its hidden layer."""


class HypernetworkConfig(Config, frozen=True, kw_only=True):
    """A network that reads transitions and puts out a Q-network's parameters."""

    encoder: Literal["mean", "attention"] = "mean"
    """How a set of transitions becomes a summary: `mean`, or `attention` by learned queries."""
    encoder_width: Count = 64
    """Units of the encoder's layers, and numbers of a summary."""
    generated: Literal["whole", "low_rank", "film"] = "film"
    """What is generated: the parameters as a `whole`, or, of shared ones, changes of `low_rank`, or a scale and a shift
    for every unit (`film`)."""
    rank: Count = 4
    """Of `low_rank` changes."""
    renewed: Literal["every", "first"] = "every"
    """After which rounds parameters are generated anew: `every`, or the `first` alone."""
    fine_tuned: bool = False
    """Let gradient steps follow in each round, from what was generated."""


class MappingConfig(Config, frozen=True, kw_only=True):
    """A map that carries Q-parameters from a bank of sources to a new task."""

    sources: Annotated[int, Meta(ge=2)] = 14
    """Tasks of the bank."""
    map_form: Literal["full", "diagonal", "kronecker", "low_rank", "identity"] = "kronecker"
    """What the map is: `full`, `diagonal`, `kronecker`, `low_rank`, or `identity`, a copy, with nothing to learn."""
    map_width: Count = 32
    """Units of the hidden layer of what puts out the map, and numbers that attention compares."""
    map_rank: Count = 4
    """Of `low_rank` maps."""
    reads: Literal["random", "nearest", "average", "attention"] = "random"
    """Which sources are read: a `random` one, the `nearest`, the `average` of all, or what `attention` says."""
    representation: Literal["described", "inferred"] = "described"
    """What tasks are known by: `described`, their description, which is privileged; or `inferred` from transitions."""
    distillation: NonNegative = 1.0
    """Weight of the squared distance to the action values of trained sources."""
    beta: NonNegative = 0.0
    """Weight of the squared distance to the parameters of trained sources."""
    td: NonNegative = 0.0
    """Weight of the agent's loss after `td_steps` gradient steps."""
    td_steps: Natural = 1
    """Gradient steps before the agent's loss is taken, where `td` is above 0."""
    map_steps: Count = 10
    """Steps of the outer optimizer in a meta-step, after one round of every source."""
    bank_batch: Count = 64
    """Transitions of each source that the losses are estimated from."""
    source_steps: Count = 10
    """Gradient steps of each source in a meta-step, of Adam."""
    source_replay_rounds: Count = 50
    """Rounds that each source's replay holds."""
    source_learning_rate: NonNegative = 1e-3
    """Step size of the sources."""
    source_epsilon: Fraction = 0.3
    """How much the sources explore."""


class MemoryConfig(Config, frozen=True, kw_only=True):
    """The network of a learner whose memory does the learning."""

    cell: Literal["gru", "lstm"] = "gru"
    """The cell of `rl2`: `gru` or `lstm`."""
    reading: Literal["product", "plain"] = "product"
    """How the policy of `rl2` reads the cell: by `product` with what is perceived, or `plain`."""
    memory_width: Count = 128
    """Units of the cell, of the controller of `mann`, or of a layer of `snail`."""
    span: Natural = 0
    """Steps that the cell of `rl2` and the controller of `mann` remember at first; 0 stands for a whole trial."""
    slots: Count = 32
    """Places of the memory of `mann`."""
    word: Count = 32
    """Numbers that a place holds."""
    heads: Count = 4
    """Reads and writes of a step of `mann`; attention heads of `snail`."""
    attention_layers: Count = 2
    """Layers of `snail`."""
    context: Natural = 0
    """Steps that `snail` keeps, a lifetime and a round at least; 0 stands for a whole trial."""
    trial_rounds: Natural = 0
    """Rounds of a trial in training, at least those of a lifetime; 0: the same. With one more than these, a memory is
    trained on what it is scored by, the episode after its last round."""


class ProximalConfig(Config, frozen=True, kw_only=True):
    """Proximal policy optimisation: of memories over whole lifetimes, and of adapted policies (`outer_update`)."""

    epochs: Count = 4
    """Passes over what was collected."""
    minibatches: Count = 4
    """Optimizer steps of an epoch, each on its share of the tasks."""
    clip: Positive = 0.2
    """How far the probability of an action may move from what it was, as a ratio, before the gain stops."""
    entropy_left: Fraction = 1.0
    """Share of the weight of a learner's entropy in context that is left after `meta_steps`; it falls along a line."""


class HyperConfig(Config, frozen=True, kw_only=True):
    """Where the traced `Hypers` start; see there for what each is."""

    learning_rate: NonNegative = 0.1
    discount: Fraction = 0.95
    epsilon: Fraction = 1.0
    epsilon_decay: Fraction = 1.0
    stickiness: Annotated[float, Meta(ge=0, lt=1)] = 0.0
    temperature: NonNegative = 0.5
    target_step_size: Fraction = 1.0
    mixing: Fraction = 0.5

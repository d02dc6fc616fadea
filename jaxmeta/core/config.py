"""The static choices: whatever sets a shape, a loop's length or picks code. What multiplies is in `base.Hypers`.

Each group is a frozen dataclass that checks itself. Field names are unique across groups, so that a user sets any of
them by its bare name (`--set rounds=3`, `make_recipe(..., rounds=3)`).
"""

from dataclasses import dataclass

from jaxmeta.core.errors import require, require_finite, require_known


@dataclass(frozen=True, kw_only=True)
class LifetimeConfig:
    """How long a lifetime is: `rounds` times (`steps` steps in each of `envs` environments, then one adaptation)."""

    envs: int = 16
    """Environments of the same task, side by side."""
    steps: int = 0
    """Steps of a round in each environment; 0 stands for the task family's horizon, one episode."""
    rounds: int = 3
    """Rounds of acting, each followed by one adaptation."""

    def __post_init__(self):
        require(self.envs >= 1, "envs", "be at least 1", self.envs)
        require(self.steps >= 0, "steps", "be at least 0 (0: one episode)", self.steps)
        require(self.rounds >= 1, "rounds", "be at least 1", self.rounds)


@dataclass(frozen=True, kw_only=True)
class AgentConfig:
    """An agent's network and loss."""

    agent: str = "dqn"
    """`dqn`, `tabular_q` for one-hot or discrete observations, or `actor_critic`, which alone can act continuously."""
    hidden: tuple[int, ...] = (64, 64)
    """Width of each hidden layer."""
    dueling: bool = False
    """Value and advantage heads (Wang et al., 2016)."""
    double: bool = True
    """The newest parameters choose the action whose slow value is bootstrapped (van Hasselt et al., 2016)."""
    structure: bool = False
    """Hidden layers of `dqn` of which only a share takes part, which `hyper_policy` sets once for a lifetime."""
    huber: float = 0.0
    """Error beyond which the loss grows linearly; 0 is the squared loss."""

    def __post_init__(self):
        require_known("agent", self.agent, ("dqn", "tabular_q", "actor_critic"))
        require(all(width >= 1 for width in self.hidden), "hidden", "hold widths of at least 1", self.hidden)
        require_finite("huber", self.huber)
        require(self.huber >= 0, "huber", "be at least 0 (0: squared loss)", self.huber)


@dataclass(frozen=True, kw_only=True)
class PolicyConfig:
    """What a policy's actions are judged by."""

    estimator: str = "naive"
    """The surrogate that `actor_critic` descends on, which decides what a meta-gradient sees of how parameters changed
    the data: `naive`, `dice` or `lvc`."""
    baseline: str = "linear"
    """What `actor_critic` expects: `linear` in observation and time, fitted to each round, or a learned `value`."""
    normalised: bool = True
    """Scale the advantages of `actor_critic` to mean 0 and variance 1 in each round."""
    inner_entropy: float = 0.0
    """Weight of the entropy in the loss of `actor_critic`."""
    initial_scale: float = 1.0
    """Standard deviation of continuous actions at first, in units of half the width of their range."""
    gae_lambda: float = 0.95
    """Weight of later surprises in an advantage, in [0, 1]."""
    value_weight: float = 0.5
    """Weight of the value's squared error."""

    def __post_init__(self):
        require_known("estimator", self.estimator, ("naive", "dice", "lvc"))
        require_known("baseline", self.baseline, ("linear", "value"))
        for name in ("inner_entropy", "initial_scale", "gae_lambda", "value_weight"):
            require_finite(name, getattr(self, name))
        require(self.inner_entropy >= 0, "inner_entropy", "be at least 0", self.inner_entropy)
        require(self.initial_scale > 0, "initial_scale", "be above 0", self.initial_scale)
        require(0 <= self.gae_lambda <= 1, "gae_lambda", "be from 0 to 1", self.gae_lambda)
        require(self.value_weight >= 0, "value_weight", "be at least 0", self.value_weight)


@dataclass(frozen=True, kw_only=True)
class InnerConfig:
    """How a learner turns a round's experience into new parameters."""

    inner_steps: int = 1
    """Gradient steps after each round."""
    inner_optimizer: str = "sgd"
    """`sgd`, or `adam` or `rmsprop` where nothing differentiates through the adaptation."""
    max_inner_norm: float = 0.0
    """Inner gradients are scaled down to this global norm; 0 leaves them as they are."""
    batch_size: int = 0
    """Transitions of a gradient step, drawn from the replay buffer; 0 uses the whole buffer."""
    replay_rounds: int = 1
    """Rounds that the replay ring buffer holds."""
    n_step: int = 0
    """Rewards summed before a value is bootstrapped; 0 sums to the end of the episode or the round (Monte Carlo)."""
    mixed_targets: bool = False
    """Mix targets of one step with those of `n_step`, by the hyper-parameter `mixing`."""
    remat: bool = False
    """Recompute each inner step, and each round of a long lifetime, in the backward pass instead of storing it: less
    memory, more time."""
    nested_remat: bool = False
    """Recompute at two levels: memory grows with the square root of the number of steps, at two more passes through
    each loop where `remat` takes one."""

    def __post_init__(self):
        require(self.inner_steps >= 1, "inner_steps", "be at least 1", self.inner_steps)
        require_known("inner_optimizer", self.inner_optimizer, ("sgd", "adam", "rmsprop"))
        require_finite("max_inner_norm", self.max_inner_norm)
        require(self.max_inner_norm >= 0, "max_inner_norm", "be at least 0 (0: no limit)", self.max_inner_norm)
        require(self.batch_size >= 0, "batch_size", "be at least 0 (0: the whole buffer)", self.batch_size)
        require(self.replay_rounds >= 1, "replay_rounds", "be at least 1", self.replay_rounds)
        require(self.n_step >= 0, "n_step", "be at least 0 (0: Monte Carlo)", self.n_step)


@dataclass(frozen=True, kw_only=True)
class OuterConfig:
    """How meta-parameters are scored and updated."""

    meta_steps: int = 1000
    """Meta-steps of a whole run."""
    tasks_per_batch: int = 20
    """Tasks of a meta-step."""
    lives_per_task: int = 1
    """Independent lifetimes of each task."""
    sampling_correction: bool = True
    """Credit how a lifetime explored by the returns that adaptation then led to, held against those of the task's other
    lives: it takes `lives_per_task` of 2 or more, of a single life nothing is credited."""
    tasks_per_group: int = 0
    """Tasks that are vmapped together, group after group; 0 puts the whole batch into one group."""
    outer_loss: str = "policy_gradient"
    """What adapted parameters are scored by: `policy_gradient`, `td`, `monte_carlo`, or, where no gradient is asked of
    it, `return`."""
    scored_rounds: str = "every"
    """After which rounds parameters are scored: `every`, `last`, or `before_and_every`, before the first one too."""
    query_envs: int = 16
    """Fresh environments that each score is estimated in."""
    outer_discount: float = 1.0
    """Discount of the returns that `policy_gradient` maximises; below 1, less variance, less weight on late rewards."""
    entropy: float = 0.01
    """Weight of the adapted policy's entropy in `policy_gradient`."""
    outer_update: str = "descent"
    """`descent`, one step of the optimizer a meta-step; or `proximal`, several on what was lived once, within a trust
    region, for adapted policies (`actor_critic`)."""
    outer_learning_rate: float = 1e-3
    """Step size of the outer optimizer."""
    learning_rate_left: float = 1.0
    """Share of `outer_learning_rate` that is left after `meta_steps`; it falls along a line, 1 keeps it as it is."""
    max_gradient_norm: float = 1.0
    """Meta-gradients are scaled down to this global norm."""

    def __post_init__(self):
        for name in ("meta_steps", "tasks_per_batch", "lives_per_task", "query_envs"):
            require(getattr(self, name) >= 1, name, "be at least 1", getattr(self, name))
        group = self.tasks_per_group
        require(
            group >= 0 and (group == 0 or self.tasks_per_batch % group == 0),
            "tasks_per_group",
            f"be 0 or divide tasks_per_batch = {self.tasks_per_batch}",
            group,
        )
        require_known("outer_loss", self.outer_loss, ("policy_gradient", "td", "monte_carlo", "return"))
        require_known("outer_update", self.outer_update, ("descent", "proximal"))
        require_known("scored_rounds", self.scored_rounds, ("every", "last", "before_and_every"))
        for name in ("outer_discount", "entropy", "outer_learning_rate", "learning_rate_left", "max_gradient_norm"):
            require_finite(name, getattr(self, name))
        require(0 <= self.outer_discount <= 1, "outer_discount", "be from 0 to 1", self.outer_discount)
        require(self.entropy >= 0, "entropy", "be at least 0", self.entropy)
        require(self.outer_learning_rate >= 0, "outer_learning_rate", "be at least 0", self.outer_learning_rate)
        require(0 <= self.learning_rate_left <= 1, "learning_rate_left", "be from 0 to 1", self.learning_rate_left)
        require(self.max_gradient_norm > 0, "max_gradient_norm", "be above 0", self.max_gradient_norm)

    @property
    def scores_before(self) -> bool:
        """Whether parameters are scored before the first round too."""
        return self.scored_rounds == "before_and_every"


@dataclass(frozen=True, kw_only=True)
class EstimationConfig:
    """How the gradient of a lifetime in the meta-parameters is estimated; see `outer.estimators`."""

    outer_gradient: str = "backpropagation"
    """`backpropagation`, `es` (antithetic evolution strategies) or `pes` (persistent ones)."""
    stretch: int = 0
    """Rounds of a lifetime that a meta-step lives; 0 stands for all of them. Fewer are truncated."""
    population: int = 16
    """Perturbed lives of each task under `es` and `pes`, in antithetic pairs."""
    perturbation: float = 0.1
    """Standard deviation of the perturbation of meta-parameters under `es` and `pes`."""

    def __post_init__(self):
        require_known("outer_gradient", self.outer_gradient, ("backpropagation", "es", "pes"))
        require(self.stretch >= 0, "stretch", "be at least 0 (0: a whole lifetime)", self.stretch)
        paired = self.population >= 2 and self.population % 2 == 0
        require(paired, "population", "be even and at least 2, for antithetic pairs", self.population)
        require_finite("perturbation", self.perturbation)
        require(self.perturbation > 0, "perturbation", "be above 0", self.perturbation)


@dataclass(frozen=True, kw_only=True)
class RuleConfig:
    """The network of a learned update rule."""

    rule: str = "structured"
    """What sets how parameters move: `structured`, per layer; `recurrent`, per parameter; or `attention`, per unit."""
    rule_base: str = "adam"
    """What the rule is before it has learned: `adam`, `rmsprop` or `sgd`."""
    rule_width: int = 8
    """Units of the `recurrent` rule's cell, numbers of a token of the `attention` rule."""
    rule_cell: str = "gru"
    """The cell of the `recurrent` rule: `gru` or `lstm`."""

    def __post_init__(self):
        require_known("rule", self.rule, ("structured", "recurrent", "attention"))
        require_known("rule_base", self.rule_base, ("adam", "rmsprop", "sgd"))
        require(self.rule_width >= 1, "rule_width", "be at least 1", self.rule_width)
        require_known("rule_cell", self.rule_cell, ("gru", "lstm"))


@dataclass(frozen=True, kw_only=True)
class GovernorConfig:
    """A policy that sets Q-learning's hyper-parameters."""

    form: str = "online"
    """What it sees: `online`, how learning goes; `schedule`, how much of the lifetime has passed; `static`, a
    description of the task, which is privileged; or `constant`, nothing."""
    policy_width: int = 16
    """Units of its hidden layer."""

    def __post_init__(self):
        require_known("form", self.form, ("online", "schedule", "static", "constant"))
        require(self.policy_width >= 1, "policy_width", "be at least 1", self.policy_width)


@dataclass(frozen=True, kw_only=True)
class HypernetworkConfig:
    """A network that reads transitions and puts out a Q-network's parameters."""

    encoder: str = "mean"
    """How a set of transitions becomes a summary: `mean`, or `attention` by learned queries."""
    encoder_width: int = 64
    """Units of the encoder's layers, and numbers of a summary."""
    generated: str = "film"
    """What is generated: the parameters as a `whole`, or, of shared ones, changes of `low_rank`, or a scale and a shift
    for every unit (`film`)."""
    rank: int = 4
    """Of `low_rank` changes."""
    renewed: str = "every"
    """After which rounds parameters are generated anew: `every`, or the `first` alone."""
    fine_tuned: bool = False
    """Let gradient steps follow in each round, from what was generated."""

    def __post_init__(self):
        require_known("encoder", self.encoder, ("mean", "attention"))
        require_known("generated", self.generated, ("whole", "low_rank", "film"))
        require_known("renewed", self.renewed, ("every", "first"))
        require(self.encoder_width >= 1, "encoder_width", "be at least 1", self.encoder_width)
        require(self.rank >= 1, "rank", "be at least 1", self.rank)


@dataclass(frozen=True, kw_only=True)
class MappingConfig:
    """A map that carries Q-parameters from a bank of sources to a new task."""

    sources: int = 14
    """Tasks of the bank."""
    map_form: str = "kronecker"
    """What the map is: `full`, `diagonal`, `kronecker`, `low_rank`, or `identity`, a copy, with nothing to learn."""
    map_width: int = 32
    """Units of the hidden layer of what puts out the map, and numbers that attention compares."""
    map_rank: int = 4
    """Of `low_rank` maps."""
    reads: str = "random"
    """Which sources are read: a `random` one, the `nearest`, the `average` of all, or what `attention` says."""
    representation: str = "described"
    """What tasks are known by: `described`, their description, which is privileged; or `inferred` from transitions."""
    distillation: float = 1.0
    """Weight of the squared distance to the action values of trained sources."""
    beta: float = 0.0
    """Weight of the squared distance to the parameters of trained sources."""
    td: float = 0.0
    """Weight of the agent's loss after `td_steps` gradient steps."""
    td_steps: int = 1
    """Gradient steps before the agent's loss is taken, where `td` is above 0."""
    map_steps: int = 10
    """Steps of the outer optimizer in a meta-step, after one round of every source."""
    bank_batch: int = 64
    """Transitions of each source that the losses are estimated from."""
    source_steps: int = 10
    """Gradient steps of each source in a meta-step, of Adam."""
    source_replay_rounds: int = 50
    """Rounds that each source's replay holds."""
    source_learning_rate: float = 1e-3
    """Step size of the sources."""
    source_epsilon: float = 0.3
    """How much the sources explore."""

    def __post_init__(self):
        require_known("map_form", self.map_form, ("full", "diagonal", "kronecker", "low_rank", "identity"))
        require_known("reads", self.reads, ("random", "nearest", "average", "attention"))
        require_known("representation", self.representation, ("described", "inferred"))
        require(self.sources >= 2, "sources", "be at least 2, a target and a source", self.sources)
        for name in ("map_width", "map_rank", "map_steps", "bank_batch", "source_steps", "source_replay_rounds"):
            require(getattr(self, name) >= 1, name, "be at least 1", getattr(self, name))
        require(self.td_steps >= 0, "td_steps", "be at least 0", self.td_steps)
        for name in ("distillation", "beta", "td", "source_learning_rate", "source_epsilon"):
            require_finite(name, getattr(self, name))
            require(getattr(self, name) >= 0, name, "be at least 0", getattr(self, name))
        require(self.source_epsilon <= 1, "source_epsilon", "be at most 1", self.source_epsilon)


@dataclass(frozen=True, kw_only=True)
class MemoryConfig:
    """The network of a learner whose memory does the learning."""

    cell: str = "gru"
    """The cell of `rl2`: `gru` or `lstm`."""
    reading: str = "product"
    """How the policy of `rl2` reads the cell: by `product` with what is perceived, or `plain`."""
    memory_width: int = 128
    """Units of the cell, of the controller of `mann`, or of a layer of `snail`."""
    span: int = 0
    """Steps that the cell of `rl2` and the controller of `mann` remember at first; 0 stands for a whole trial."""
    slots: int = 32
    """Places of the memory of `mann`."""
    word: int = 32
    """Numbers that a place holds."""
    heads: int = 4
    """Reads and writes of a step of `mann`; attention heads of `snail`."""
    attention_layers: int = 2
    """Layers of `snail`."""
    context: int = 0
    """Steps that `snail` keeps, a lifetime and a round at least; 0 stands for a whole trial."""
    trial_rounds: int = 0
    """Rounds of a trial in training, at least those of a lifetime; 0: the same. With one more than these, a memory is
    trained on what it is scored by, the episode after its last round."""

    def __post_init__(self):
        require_known("cell", self.cell, ("gru", "lstm"))
        require_known("reading", self.reading, ("product", "plain"))
        for name in ("memory_width", "slots", "word", "heads", "attention_layers"):
            require(getattr(self, name) >= 1, name, "be at least 1", getattr(self, name))
        for name in ("span", "context"):
            require(getattr(self, name) >= 0, name, "be at least 0 (0: a whole trial)", getattr(self, name))
        require(self.trial_rounds >= 0, "trial_rounds", "be at least 0 (0: those of a lifetime)", self.trial_rounds)


@dataclass(frozen=True, kw_only=True)
class ProximalConfig:
    """Proximal policy optimisation: of memories over whole lifetimes, and of adapted policies (`outer_update`)."""

    epochs: int = 4
    """Passes over what was collected."""
    minibatches: int = 4
    """Optimizer steps of an epoch, each on its share of the tasks."""
    clip: float = 0.2
    """How far the probability of an action may move from what it was, as a ratio, before the gain stops."""
    entropy_left: float = 1.0
    """Share of the weight of a learner's entropy in context that is left after `meta_steps`; it falls along a line."""

    def __post_init__(self):
        require(self.epochs >= 1, "epochs", "be at least 1", self.epochs)
        require(self.minibatches >= 1, "minibatches", "be at least 1", self.minibatches)
        for name in ("clip", "entropy_left"):
            require_finite(name, getattr(self, name))
        require(self.clip > 0, "clip", "be above 0", self.clip)
        require(0 <= self.entropy_left <= 1, "entropy_left", "be from 0 to 1", self.entropy_left)


@dataclass(frozen=True, kw_only=True)
class HyperConfig:
    """Where the traced `Hypers` start; see there for what each is."""

    learning_rate: float = 0.1
    discount: float = 0.95
    epsilon: float = 1.0
    epsilon_decay: float = 1.0
    stickiness: float = 0.0
    temperature: float = 0.5
    target_step_size: float = 1.0
    mixing: float = 0.5

    def __post_init__(self):
        for name, value in vars(self).items():
            require_finite(name, value)
            require(value >= 0, name, "be at least 0", value)
        require(self.stickiness < 1, "stickiness", "be below 1", self.stickiness)
        for name in ("discount", "epsilon", "epsilon_decay", "target_step_size", "mixing"):
            require(getattr(self, name) <= 1, name, "be at most 1", getattr(self, name))

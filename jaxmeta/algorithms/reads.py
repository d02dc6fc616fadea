"""Which settings each kind of recipe reads, and which of them its agent has no use for.

`tests/algorithms/test_reads.py` composes and traces every recipe and holds these sets against what is read there.
"""

import difflib
from collections.abc import Iterable, Mapping
from typing import Any

from jaxmeta.algorithms.settings import FIELD_GROUP
from jaxmeta.core.errors import UsageError, as_kind, require_known


def fields_of(*groups: str) -> frozenset[str]:
    """The settings of groups of `jaxmeta.core.config`.

    >>> sorted(fields_of("governor", "lifetime"))
    ['envs', 'form', 'policy_width', 'rounds', 'steps']
    """
    return frozenset(name for name, group in FIELD_GROUP.items() if group in groups)


RUN = frozenset({"meta_steps"})
"""What training itself reads, whatever the recipe."""
CLIPPED_STEPS = frozenset({"epochs", "minibatches", "clip"})
"""What `outer_update=proximal` and learners in context share."""
OUTER_STEPS = frozenset({"outer_learning_rate", "learning_rate_left", "max_gradient_norm"})
"""What the outer optimizer is made of."""

BY_GRADIENT = fields_of("lifetime", "agent", "policy", "inner", "outer", "estimation", "hypers") | CLIPPED_STEPS
"""MAML and its kin."""
BY_GRADIENT_WITH_OWN_RULE = BY_GRADIENT - {"inner_optimizer"}
"""Those of them whose inner loop takes no steps of an optimizer made by hand."""
BY_DISPLACEMENT = BY_GRADIENT - CLIPPED_STEPS - {"population", "perturbation"}
"""Reptile."""
BY_LEARNED_RULE = BY_GRADIENT_WITH_OWN_RULE | fields_of("rule")
ON_ACTION_VALUES = BY_GRADIENT - CLIPPED_STEPS - fields_of("policy")
"""What needs action values, and is trained by a meta-gradient."""
BY_HYPER_POLICY = (ON_ACTION_VALUES | fields_of("governor")) - {"epsilon_decay"}
BY_HYPERNETWORK = ON_ACTION_VALUES | fields_of("hypernetwork")
WITHOUT_META_GRADIENT = fields_of("lifetime", "agent", "policy", "inner", "hypers") - {"remat", "nested_remat"}
"""What learns by gradient steps and is not differentiated through."""
BASELINE = WITHOUT_META_GRADIENT | {"tasks_per_batch"}
BY_MAPPING = (
    (WITHOUT_META_GRADIENT - fields_of("policy"))
    | fields_of("mapping")
    | {"encoder", "encoder_width", "renewed"}
    | OUTER_STEPS
)
IN_CONTEXT = (
    fields_of("lifetime", "proximal")
    | OUTER_STEPS
    | {"tasks_per_batch", "entropy", "gae_lambda", "value_weight", "discount", "memory_width", "trial_rounds"}
)
BY_CELL = IN_CONTEXT | {"cell", "reading", "span"}
BY_EXTERNAL_MEMORY = IN_CONTEXT | {"slots", "word", "heads", "span"}
BY_ATTENTION = IN_CONTEXT | {"heads", "attention_layers", "context"}

FOR_A_POLICY = fields_of("policy") | CLIPPED_STEPS
"""What recipes with an agent read where that is a policy."""
USELESS_TO = {
    "dqn": FOR_A_POLICY,
    "tabular_q": FOR_A_POLICY | {"hidden", "dueling"},
    "actor_critic": frozenset({"dueling", "double", "structure", "huber"})
    | {"batch_size", "replay_rounds", "n_step", "mixed_targets"}
    | {"epsilon", "epsilon_decay", "stickiness", "temperature", "mixing"},
}
"""By agent, what a recipe with that agent does not read."""
MOST_HINTS = 5


def read_under(reads: frozenset[str] | None, agent: str) -> frozenset[str]:
    """The settings that are read where a recipe has an agent.

    Args:
      reads: what the recipe declares; None: everything.
      agent: of its complete settings. A recipe that does not read `agent` has none.

    Raises:
      UsageError: there is no such agent.
    """
    require_known("agent", as_kind("agent", agent, str), USELESS_TO)
    if reads is None:
        return frozenset(FIELD_GROUP)
    return RUN | (reads - USELESS_TO[agent] if "agent" in reads else reads)


def require_read(recipe: str, reads: frozenset[str] | None, given: Iterable[str], resolved: Mapping[str, Any]) -> None:
    """Refuses settings that a recipe does not read, for they would change nothing.

    All settings together, as `config.json` holds them, are no choice of any one, and pass.

    Args:
      recipe: its name.
      reads: what it declares; None: everything.
      given: names of the settings that were given.
      resolved: the complete settings.

    Raises:
      UsageError: one of them is not read; it names those that are read and spelled most like it.
    """
    given, known = list(given), read_under(reads, resolved["agent"])
    if set(given) >= set(FIELD_GROUP):
        return
    for name in (name for name in given if name not in known):
        with_agent = f" with agent {resolved['agent']!r}" if name in (reads or ()) else ""
        near = [repr(other) for other in difflib.get_close_matches(name, sorted(known), n=MOST_HINTS, cutoff=0.55)]
        hint = f"Did you mean {' or '.join(filter(None, [', '.join(near[:-1]), near[-1]]))}?" if near else ""
        raise UsageError("setting", f"be one that {recipe} reads{with_agent}", name, hint=hint)

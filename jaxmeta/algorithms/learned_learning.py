"""Q-learning whose update rule, or whose hyper-parameters, are learned."""

from collections.abc import Callable

from jaxmeta import inner as adapters
from jaxmeta.algorithms.composition import Parts, compose, learner_by_gradient, posing, size_of_description
from jaxmeta.algorithms.settings import Settings
from jaxmeta.core.errors import require
from jaxmeta.core.types import MetaLearner
from jaxmeta.inner import learned_optimizers as rules
from jaxmeta.inner.optimizers import UpdateRule


def learned_rule(parts: Parts) -> MetaLearner:
    """Every lifetime starts from fresh parameters; what is learned is how they change."""
    adapter = learner_by_gradient(parts, rule=update_rule(parts.settings), fresh=True)
    return compose(parts, adapter, learned=lambda path: path[0].name == "rule")


def update_rule(settings: Settings) -> UpdateRule:
    """The learned rule that settings ask for."""
    config = settings.rule
    divides = config.rule != "attention" or config.rule_width % rules.Attentive.heads == 0
    rule = f"be a multiple of {rules.Attentive.heads} under rule 'attention'"
    require(divides, "rule_width", rule, config.rule_width)
    networks: dict[str, Callable[[int], rules.Network]] = {
        "structured": rules.Structured,
        "recurrent": lambda num_layers: rules.Recurrent(config.rule_width, config.rule_cell),
        "attention": lambda num_layers: rules.Attentive(config.rule_width),
    }
    return rules.learned_rule(networks[config.rule], config.rule_base)


def hyper_policy(parts: Parts) -> MetaLearner:
    """Every lifetime starts from fresh parameters; what is learned is how their learning is set."""
    tasks, settings = parts.tasks, parts.settings
    form, agent = settings.governor.form, settings.agent
    rule = "have action values for hyper_policy, which sets how they are learned"
    require(not parts.agent.on_policy, "agent", rule, agent.agent)
    described, size = form == "static", size_of_description(tasks)
    rule = f"see something of a task, of which {tasks.name} tells nothing"
    require(not described or size > 0, "form", rule, form)
    learner = learner_by_gradient(parts, fresh=True, slow_targets=True, adapts=lambda path: path[0].key != "structure")
    layers = len(agent.hidden) if agent.structure else 0
    width, rounds = settings.governor.policy_width, settings.lifetime.rounds
    adapter = adapters.hyper_policy(learner, form, size, width, rounds, layers)
    return compose(parts, adapter, learned=lambda path: path[0].name == "policy", pose=posing(tasks, described))

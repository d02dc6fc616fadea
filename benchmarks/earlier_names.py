"""Settings as they were called before algorithms had configurations of their own: translated for what is kept of then.

    python benchmarks/earlier_names.py RUN_DIR ...

rewrites `config.json` of runs that were trained then, so that they can be evaluated now; figures stay as they are.
"""

import argparse
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

ALGORITHMS = {"learned_rule": "learned_optimizer"}
"""Algorithms by their earlier names."""
PATHS: dict[str, tuple[str, ...]] = {
    "envs": ("adaptation.num_envs",),
    "steps": ("adaptation.rollout_length",),
    "rounds": ("adaptation.num_adaptations",),
    "agent": ("agent",),
    **{name: (f"agent.{name}",) for name in ("hidden", "dueling", "double", "structure", "huber", "n_step")},
    **{name: (f"agent.{name}",) for name in ("baseline", "normalised", "inner_entropy", "initial_scale")},
    **{name: (f"agent.{name}",) for name in ("batch_size", "mixed_targets", "mixing", "target_step_size")},
    **{name: (f"agent.{name}",) for name in ("epsilon", "epsilon_decay", "stickiness", "temperature")},
    **{name: (f"agent.{name}", f"outer.{name}") for name in ("discount", "gae_lambda", "value_weight")},
    "replay_rounds": ("agent.replay_capacity",),
    "estimator": ("agent.surrogate",),
    "inner_steps": ("inner.num_steps",),
    "inner_optimizer": ("inner.optimizer",),
    "max_inner_norm": ("inner.max_gradient_norm",),
    "learning_rate": ("inner.learning_rate",),
    "outer_loss": ("objective.loss",),
    "scored_rounds": ("objective.scored",),
    "query_envs": ("objective.num_query_envs",),
    "outer_discount": ("objective.outer_discount",),
    "entropy": ("objective.entropy", "outer.entropy"),
    "lives_per_task": ("objective.lifetimes_per_task",),
    "sampling_correction": ("objective.sampling_correction",),
    "meta_steps": ("meta_steps",),
    "tasks_per_batch": ("outer.tasks_per_batch",),
    "tasks_per_group": ("outer.tasks_per_group",),
    "outer_learning_rate": ("outer.learning_rate",),
    "learning_rate_left": ("outer.final_learning_rate_fraction",),
    "max_gradient_norm": ("outer.max_gradient_norm",),
    "outer_gradient": ("outer.gradient_estimator",),
    "stretch": ("outer.truncation_length",),
    "population": ("outer.num_perturbations",),
    "perturbation": ("outer.perturbation_scale",),
    "remat": ("outer.remat",),
    "outer_update": ("outer.trust_region",),
    **{name: (f"outer.trust_region.{name}",) for name in ("epochs", "minibatches", "clip")},
    "entropy_left": ("outer.final_entropy_fraction",),
    "trial_rounds": ("outer.trial_rollouts",),
    "rule": ("rule.network",),
    "rule_base": ("rule.base",),
    "rule_width": ("rule.width",),
    "rule_cell": ("rule.cell",),
    "form": ("policy.form",),
    "policy_width": ("policy.width",),
    "encoder": ("encoder.pooling",),
    "encoder_width": ("encoder.width",),
    "generated": ("generator.form",),
    "rank": ("generator.rank",),
    "renewed": ("regenerate",),
    "fine_tuned": ("fine_tune",),
    "sources": ("num_sources",),
    "map_form": ("map.form",),
    "map_width": ("map.width",),
    "map_rank": ("map.rank",),
    "reads": ("source_selection",),
    "representation": ("task_embedding",),
    **{name: (f"loss.{name}",) for name in ("distillation", "beta", "td", "td_steps", "bank_batch")},
    "map_steps": ("outer.num_updates",),
    "source_steps": ("sources.num_steps",),
    "source_replay_rounds": ("sources.replay_capacity",),
    "source_learning_rate": ("sources.learning_rate",),
    "source_epsilon": ("sources.epsilon",),
    "cell": ("memory.cell",),
    "reading": ("memory.readout",),
    "memory_width": ("memory.width",),
    "span": ("memory.span",),
    "slots": ("memory.slots",),
    "word": ("memory.word",),
    "heads": ("memory.heads",),
    "attention_layers": ("memory.layers",),
    "context": ("memory.context",),
}
"""By earlier name, where the setting is now: the first of these paths that an algorithm has."""


def translated(algorithm: str, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings by path, of those that an algorithm reads, as they were called earlier."""
    from jaxmeta.algorithms import registry
    from jaxmeta.core.settings import paths_of, replaced

    config = registry.find(algorithm).config()
    if "agent" in settings and hasattr(config, "agent"):
        config = replaced(config, {"agent": settings["agent"]})
    known, found = set(paths_of(config)), {}
    for name, value in settings.items():
        path = next((path for path in PATHS.get(name, ()) if path in known), None)
        if path is not None:
            found[path] = list(value) if isinstance(value, tuple) else value
    if "outer.remat" in known:
        kinds = {(False, False): "none", (True, False): "steps"}
        found["outer.remat"] = kinds.get((bool(settings.get("remat")), bool(settings.get("nested_remat"))), "nested")
    if "outer.trust_region" in known:
        proximal = settings.get("outer_update") == "proximal"
        found["outer.trust_region"] = "default" if proximal else None
        if not proximal:
            found = {path: value for path, value in found.items() if not path.startswith("outer.trust_region.")}
    return found


def nested(algorithm: str, settings: Mapping[str, Any]) -> dict[str, Any]:
    """All settings of a run, as `config.json` holds them now."""
    from jaxmeta.algorithms import registry
    from jaxmeta.core import settings as by_path

    config, found = registry.find(algorithm).config(), translated(algorithm, settings)
    records = {path: found.pop(path) for path in ("agent", "outer.trust_region") if found.get(path)}
    found.pop("outer.trust_region", None)
    return by_path.nested(by_path.with_values(by_path.with_values(config, records), found))


def main() -> None:
    """Rewrites `config.json` of runs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN_DIR")
    for folder in parser.parse_args().runs:
        path = folder / "config.json"
        config = json.loads(path.read_text(encoding="utf-8"))
        if "recipe" not in config:
            print(f"{folder}: has the names of now")
            continue
        recipe = config.pop("recipe")
        algorithm = ALGORITHMS.get(recipe, recipe)
        config = {"algorithm": algorithm, **config, "settings": nested(str(algorithm), config["settings"])}
        if "sweep" in config:
            config["sweep"] = {PATHS[name][0]: values for name, values in config["sweep"].items()}
        path.write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
        print(f"{folder}: rewritten")


if __name__ == "__main__":
    main()

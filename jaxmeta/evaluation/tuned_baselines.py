"""The baselines of one evaluation: how they adapt best, which is tuned or known already, and what they earn so."""

import functools
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from types import MappingProxyType
from typing import Any

import jax
import numpy as np

from jaxmeta.algorithms.baselines import FinetuneConfig
from jaxmeta.core.config import AlgorithmConfig
from jaxmeta.core.settings import settings_of
from jaxmeta.core.types import Key, PyTree, TaskDistribution, sample_tasks
from jaxmeta.evaluation import baseline_cache, baselines
from jaxmeta.evaluation.baselines import (
    LEARNING_RATES,
    TUNING_TASKS,
    Choice,
    Starts,
    Tried,
    adapting_config,
    grid_of,
    standard_config,
)
from jaxmeta.evaluation.measurement import Measured, Meter

NAMES = ("scratch", "finetune")
TUNED = ("inner.learning_rate", "inner.num_steps", "agent.epsilon", "agent.temperature", "agent.n_step")
"""The settings that a `Choice` sets."""
PROTOCOL = 1
"""Raised by whatever changes how a baseline is tuned, so that no choice of before is taken for one of now."""
PRETRAINING = "training the start of finetune"


class Baselines:
    """`scratch` and `finetune` beside a learner that is evaluated.

    Args:
      key: one key.
      tasks: the task distribution.
      config: of the learner; its lifetime, agent and exploration are the baselines' own.
      pretraining_steps: environment steps on training tasks that `finetune` starts from.
      seed: of the evaluation, which `key` was made from; a choice is known by it.
      meter: receives the progress, in `parts_of_work`.
    """

    def __init__(
        self,
        key: Key,
        tasks: TaskDistribution,
        config: AlgorithmConfig,
        *,
        pretraining_steps: int,
        seed: int,
        meter: Meter | None = None,
    ):
        standard = standard_config(config, tasks)
        self.tasks, self.config, self.seed = tasks, adapting_config(standard), seed
        self.pretraining_steps, self.grid = pretraining_steps, grid_of(standard)
        self._meter = meter or Meter(parts_of_work(standard))
        self._train_key, *keys = jax.random.split(key, 1 + len(NAMES))
        self._keys = {name: jax.random.split(key, 3) for name, key in zip(NAMES, keys, strict=True)}
        self._programs = baselines.make_programs(tasks, self.config)
        self._starts: dict[tuple[str, int], Starts] = {}

    def content(self, name: str) -> baseline_cache.Content:
        """What the choice of a baseline follows from, JSON-able.

        Of the environment steps that `finetune` was trained for, the power of ten counts: how it adapts best hardly
        depends on them, so that a slightly longer training needs no new tuning.
        """
        groups = ("adaptation", "agent", "inner")
        fixed = {
            path: value
            for path, value in settings_of(self.config).items()
            if path.partition(".")[0] in groups and path not in TUNED
        }
        power = round(math.log10(max(1, self.pretraining_steps)))
        return {
            "protocol": PROTOCOL,
            "baseline": name,
            "tasks": self.tasks.name,
            "settings": fixed,
            "grid": {"learning_rates": LEARNING_RATES, "tuning_tasks": TUNING_TASKS, **self.grid._asdict()},
            "seed": self.seed,
            "pretraining": f"1e{power}" if name == "finetune" else None,
        }

    def own_content(self, name: str) -> dict[str, Any]:
        """The same of a choice that is kept in the user's folder: whatever goes by the family's name, it is these."""
        return {**self.content(name), "family": self._family}

    def tune(self, name: str) -> Tried:
        """The best choice on validation tasks."""
        start = self._start(name, 0)
        self._meter.begin(f"tuning {name} on validation tasks")
        tune_key, _, _ = self._keys[name]
        return baselines.tune(tune_key, self.tasks, self._programs, start, self.grid, self._meter.advance)

    def measure(self, name: str, choice: Choice, env_params: PyTree, starts: int) -> list[Measured]:
        """Lives from each of several starts, leaves [tasks, ...]; the first start is the one that is tuned."""
        _, start_key, lifetime_key = self._keys[name]
        count, entries = jax.tree.leaves(env_params)[0].shape[0], []
        for index in range(starts):
            params = self._start(name, index)(jax.random.fold_in(start_key, index), count)
            self._meter.begin(f"measuring {name}")
            measured = baselines.adapted_by(
                self._programs,
                jax.random.fold_in(lifetime_key, index),
                choice,
                (choice.learning_rate,),
                params,
                env_params,
                self._meter.advance,
            )
            entries.append(jax.tree.map(lambda leaf: np.asarray(leaf[0]), measured))
        return entries

    def _start(self, name: str, index: int) -> Starts:
        if (name, index) not in self._starts:
            if name == "scratch":
                self._starts[name, index] = baselines.fresh_starts(self.tasks, self.config)
            else:
                self._meter.begin(PRETRAINING)
                params = self._pretraining(jax.random.fold_in(self._train_key, index))
                self._starts[name, index] = baselines.from_one_start(params)
        return self._starts[name, index]

    def estimated_seconds(self, num_tasks: int) -> float:
        """About how long a first evaluation takes to tune and measure them, by timing one trial of tuning.

        Each program of a trial is compiled; the ladder of gradient steps is taken to be climbed half of the way up.
        """
        choice, programs = baselines.first_choice(self.grid), 0
        env_params = sample_tasks(self._train_key, self.tasks, "validation", TUNING_TASKS)
        params = baselines.fresh_starts(self.tasks, self.config)(self._train_key, TUNING_TASKS)

        def trial():
            return baselines.adapted_by(self._programs, self._train_key, choice, LEARNING_RATES, params, env_params)

        pretraining = baselines.make_pretraining(self.tasks, self.config, 0)  # one update
        compiling, running = _first_and_second(trial)
        update = _first_and_second(lambda: pretraining(self._train_key))
        seconds = sum(update) + update[1] * self.pretraining_steps / baselines.steps_of_update(self.tasks, self.config)
        for name in NAMES:
            seconds += compiling + running * num_tasks / (TUNING_TASKS * len(LEARNING_RATES))
            if known_choice(self, name) is None:
                above = sum(self.grid.num_steps[self.grid.middle + 1 :]) / 2 / choice.num_steps
                seconds += running * (self.grid.trials_in_the_middle + above)
                programs = len(self.grid.n_steps) + len(self.grid.num_steps) // 2
        return seconds + programs * compiling

    @functools.cached_property
    def _family(self) -> str:
        return baseline_cache.of_tasks(self.tasks)

    @functools.cached_property
    def _pretraining(self):
        return baselines.make_pretraining(self.tasks, self.config, self.pretraining_steps)


def _first_and_second(run: Callable[[], Any]) -> tuple[float, float]:
    """Seconds that the first call of a program takes more than the second, and those of the second."""
    seconds = []
    for _ in range(2):
        start = time.perf_counter()
        jax.block_until_ready(run())
        seconds.append(time.perf_counter() - start)
    return max(0.0, seconds[0] - seconds[1]), seconds[1]


def measure_baselines(
    those: Baselines,
    key: Key,
    env_params: PyTree,
    *,
    starts: int = 1,
    choices: Mapping[str, Choice] = MappingProxyType({}),
    retune: bool = False,
) -> dict[str, tuple[list[Measured], Tried]]:
    """What the baselines earn in tasks, adapting as they do best. What is known already is not found out again.

    Args:
      those: the baselines.
      key: that they were made with, by which measurements are known again.
      env_params: where they are measured, leaves [tasks, ...].
      starts: how many starts of each are trained and measured.
      choices: by baseline, how it adapts, where that was tuned before.
      retune: tune and measure anew, whatever is known.

    Returns:
      By name, what was measured from each start, leaves [tasks, ...], and how the baseline adapted.
    """
    arguments, measured = baseline_cache.of_arrays((key, env_params)), {}
    for name in NAMES:
        content = those.own_content(name)
        tried = Tried(choices[name], those.grid, None, "given") if name in choices else None
        tried = tried or (None if retune else known_choice(those, name))
        if tried is None:
            tried = those.tune(name)
            baseline_cache.keep(content, {"choice": asdict(tried.choice), "validation_return": tried.validation_return})
        content = {**content, "choice": asdict(tried.choice), "starts": starts, "arguments": arguments}
        content |= {"pretraining_steps": those.pretraining_steps, "engine": baseline_cache.of_engine()}
        known = None if retune else baseline_cache.find(content)
        entries = baseline_cache.unpacked(known) if known else those.measure(name, tried.choice, env_params, starts)
        if not known:
            baseline_cache.keep(content, baseline_cache.packed(entries))
        measured[name] = (entries, tried)
    return measured


def known_choice(those: Baselines, name: str) -> Tried | None:
    """How a baseline adapts, where that ships with the package or was tuned here before."""
    for source, found in (
        ("shipped", baseline_cache.shipped_choice(those.content(name))),
        ("cached", baseline_cache.find(those.own_content(name))),
    ):
        if found:
            return Tried(Choice(**found["choice"]), those.grid, found["validation_return"], source)
    return None


def parts_of_work(config: FinetuneConfig, num_tasks: int = 128, pretraining_steps: int = 0) -> dict[str, float]:
    """What `measure_baselines` may have to do, and about how long each part takes beside the others.

    Args:
      config: as `standard_config` gives it.
      num_tasks: that are measured.
      pretraining_steps: environment steps that `finetune` starts from.
    """
    adaptations, grid = config.adaptation.num_adaptations, grid_of(config)
    middle = grid.middle
    steps = grid.trials_in_the_middle * grid.num_steps[middle] + sum(grid.num_steps[middle + 1 :]) / 2
    parts = {}
    for name in NAMES:
        if name == "finetune":
            parts[PRETRAINING] = 1.0 + pretraining_steps / 1e6
        parts[f"tuning {name} on validation tasks"] = adaptations * steps * len(LEARNING_RATES) * TUNING_TASKS / 20_000
        parts[f"measuring {name}"] = 1.0 + adaptations * grid.num_steps[middle] * num_tasks / 20_000
    return parts

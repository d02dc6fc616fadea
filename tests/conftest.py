"""Shared fixtures: tiny settings, so that a compiled meta-step takes a second or two."""

import contextlib
from types import MappingProxyType

import jax
import pytest

from jaxmeta import recipes, tasks
from tests import compilation

TINY = {
    "envs": 3,
    "steps": 4,
    "rounds": 2,
    "hidden": (8,),
    "inner_steps": 2,
    "replay_rounds": 2,
    "tasks_per_batch": 4,
    "lives_per_task": 1,
    "query_envs": 3,
    "learning_rate": 0.5,
    "temperature": 0.5,
    "epsilon": 1.0,
    "epsilon_decay": 1.0,
    "stickiness": 0.3,
    "max_inner_norm": 0.0,
}


def tiny(recipe, small=MappingProxyType(TINY), **settings):
    """As many of the tiny settings, or of other small ones, as a recipe reads, with others over them."""
    read = recipes.settings_read(recipe, {"agent": "dqn", **settings})
    return {name: value for name, value in small.items() if name in read} | settings


@pytest.fixture(scope="session")
def grid():
    """A small GridNavi."""
    return tasks.make("grid_navi:size=3,horizon=4")


@pytest.fixture
def float64():
    """Double precision for the length of a test."""
    with jax.enable_x64(True):
        yield


@pytest.fixture(autouse=True)
def quick_compilation(request):
    """Compiles quickly in all tests but the slow ones, which run what users run."""
    slow = request.node.get_closest_marker("slow")
    with contextlib.nullcontext() if slow else compilation.quickly():
        yield

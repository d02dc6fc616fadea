"""Shared fixtures: tiny settings, so that a compiled meta-step takes a second or two; and what all runs share."""

import contextlib
import os
import shutil
import tempfile
from types import MappingProxyType

import jax
import pytest

from jaxmeta.algorithms import registry
from jaxmeta.core import tasks
from jaxmeta.core.settings import match, paths_of, replaced
from jaxmeta.evaluation import baseline_cache
from tests import accounting, compilation, tiers

TINY = {
    "num_envs": 3,
    "rollout_length": 4,
    "num_adaptations": 2,
    "hidden": (8,),
    "inner.num_steps": 2,
    "agent.replay_capacity": 2,
    "tasks_per_batch": 4,
    "lifetimes_per_task": 1,
    "num_query_envs": 3,
    "inner.learning_rate": 0.5,
    "temperature": 0.5,
    "agent.epsilon": 1.0,
    "epsilon_decay": 1.0,
    "stickiness": 0.3,
    "inner.max_gradient_norm": 0.0,
}


def tiny(name, settings=MappingProxyType({}), small=MappingProxyType(TINY)):
    """As many of the tiny settings, or of other small ones, as an algorithm reads, with others over them."""
    config = registry.find(name).config()
    if "agent" in settings:
        config = replaced(config, {"agent": settings["agent"]})
    known = [path for path in paths_of(config) if path not in config.unread]
    return {setting: value for setting, value in small.items() if len(match(setting, known)) == 1} | dict(settings)


def pytest_configure(config):
    """Chooses the tier, keeps account, and lets all processes of a run share what they compile."""
    tiers.choose(config)
    config.pluginmanager.register(accounting.Account(config), "account")
    if "JAX_COMPILATION_CACHE_DIR" not in os.environ:  # workers of xdist inherit it, and what tests start
        programs = tempfile.mkdtemp(prefix="jaxmeta-programs-")
        config.add_cleanup(lambda: shutil.rmtree(programs, ignore_errors=True))
        os.environ["JAX_COMPILATION_CACHE_DIR"] = programs
        os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
    jax.config.update("jax_compilation_cache_dir", os.environ["JAX_COMPILATION_CACHE_DIR"])
    shortest = float(os.environ.get("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", 1))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", shortest)
    jax.config.update("jax_traceback_in_locations_limit", 0)  # a fifteenth of the time, for what nobody reads


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """In the fast tier each file goes to one process, which compiles once what its tests share."""
    from xdist.scheduler import LoadFileScheduling

    return LoadFileScheduling(config, log) if config.option.dist == "load" and not tiers.is_full() else None


@pytest.fixture(scope="session", autouse=True)
def _no_cache_of_the_user(tmp_path_factory):
    """What tests tune and measure of baselines is neither read from the user's cache folder nor kept there."""
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("cache")
        patch.setattr(baseline_cache, "user_cache", lambda: folder)
        yield


@pytest.fixture(scope="session")
def grid():
    """A small GridNavi."""
    return tasks.make_tasks("grid_navi:size=3,horizon=4")


@pytest.fixture
def float64():
    """Double precision for the length of a test."""
    with jax.enable_x64(True):
        yield


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item):
    """Compiles quickly in all tests and their fixtures, but for tests marked `optimised`, which run what users run."""
    with contextlib.nullcontext() if item.get_closest_marker("optimised") else compilation.quickly():
        return (yield)

import subprocess
import sys

import pytest

import jaxmeta.tasks
import jaxmeta_envs


def test_importing_the_package_loads_neither_jax_nor_gymnax():
    program = "import sys, jaxmeta_envs; sys.exit(bool({'jax', 'gymnax', 'numpy'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


def test_make_is_that_of_the_engine():
    assert jaxmeta_envs.make is jaxmeta.tasks.make
    assert "make" in dir(jaxmeta_envs)


def test_another_name_is_refused():
    with pytest.raises(AttributeError, match="module 'jaxmeta_envs' has no attribute 'made'"):
        _ = jaxmeta_envs.made


def test_the_command_line_can_list_every_distribution():
    summaries = jaxmeta.tasks.available()
    assert all(20 < len(summaries[name]) <= 120 for name in ("grid_navi", "cartpole", "maze", "probe"))

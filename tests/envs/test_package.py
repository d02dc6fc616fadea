import subprocess
import sys

import pytest

import jaxmeta.core.tasks
import jaxmeta_envs
from jaxmeta.core.errors import UsageError

FAMILIES = (
    "grid_navi",
    "cartpole",
    "acrobot",
    "mountain_car",
    "pendulum",
    "maze",
    "gymnax",
    "reacher",
    "xland",
    "probe",
)


def test_importing_the_package_loads_neither_jax_nor_gymnax():
    program = "import sys, jaxmeta_envs; sys.exit(bool({'jax', 'gymnax', 'numpy'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


def test_make_is_that_of_the_engine():
    assert jaxmeta_envs.make is jaxmeta.core.tasks.make_tasks
    assert "make" in dir(jaxmeta_envs)


def test_another_name_is_refused():
    with pytest.raises(AttributeError, match="module 'jaxmeta_envs' has no attribute 'made'"):
        _ = jaxmeta_envs.made


def test_the_command_line_can_list_every_distribution():
    summaries = jaxmeta.core.tasks.available()
    assert all(20 < len(summaries[name]) <= 120 for name in FAMILIES)


@pytest.mark.slow
def test_the_list_does_without_optional_packages():
    program = (
        "import sys; sys.modules['xminigrid'] = None; import jaxmeta.core.tasks; print(*jaxmeta.core.tasks.available())"
    )
    listed = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True).stdout
    assert "xland" in listed.split()


def test_a_missing_optional_package_is_told_in_one_sentence(monkeypatch):
    monkeypatch.setitem(sys.modules, "xminigrid", None)
    with pytest.raises(UsageError) as caught:
        jaxmeta_envs.make("xland")
    assert str(caught.value) == "xland must come with the package xminigrid: pip install 'jaxmeta[xland]', got none."

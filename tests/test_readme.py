"""What the README shows is what runs."""

import re
from pathlib import Path

import jax
import pytest

from jaxmeta.reporting import cells, comparison
from jaxmeta.reporting import html as report

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()


(EXAMPLE,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


def shapes_of(function):
    """In place of `jax.jit`: what a function returns, as shapes."""
    return lambda *arguments: jax.eval_shape(function, *arguments)


def test_the_example_in_python_fits_together():
    names = {"shapes_of": shapes_of}
    exec(compile(EXAMPLE.replace("@jax.jit", "@shapes_of"), "README.md", "exec"), names)
    assert names["state"].step.dtype == "int32"
    assert {"loss", "return"} <= set(names["metrics"])


@pytest.mark.slow
def test_the_example_in_python_runs():
    names = {}
    exec(compile(EXAMPLE, "README.md", "exec"), names)
    assert int(names["state"].step) == 1
    assert {"loss", "return"} <= set(names["metrics"])


def test_every_recipe_and_family_is_listed():
    from jaxmeta.algorithms import recipes
    from jaxmeta.core import tasks

    for name in [*recipes.available(), *tasks.available()]:
        assert re.search(rf"`{name}[`:]", README), name


def test_linked_files_exist():
    for target in re.findall(r"\]\(([^)#]+)\)", README):
        assert target.startswith("http") or (ROOT / target).exists(), target


@pytest.mark.slow
def test_the_table_is_that_of_the_committed_cells():
    found, missing = cells.load_all([ROOT / "benchmarks" / "results" / "scoreboard"])
    page = (ROOT / "docs" / "experiments" / "scoreboard.md").read_text()
    (table,) = re.findall(r"<!-- scoreboard: begin -->\n(.*?)<!-- scoreboard: end -->", page, re.DOTALL)
    assert table == report.markdown(comparison.rows(found), missing)

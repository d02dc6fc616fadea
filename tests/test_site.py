"""The documentation site: tutorials run, and the reference and the catalogue are complete."""

import importlib
import importlib.util
import re
import shlex
from pathlib import Path

import pytest

from jaxmeta.cli.main import main
from jaxmeta.reporting import catalogue

ROOT = Path(__file__).parent.parent
PAGES = [
    pytest.param("first_adaptation", marks=pytest.mark.slow),
    "your_tasks",
    "your_algorithm",
    pytest.param("scaling_up", marks=pytest.mark.slow),
]


@pytest.fixture(scope="module")
def hooks():
    pytest.importorskip("mkdocs")
    path = ROOT / "docs" / "hooks.py"
    spec = importlib.util.spec_from_file_location("site_hooks", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("page", PAGES)
def test_every_block_of_a_tutorial_runs(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    text = (ROOT / "docs" / "tutorial" / f"{page}.md").read_text()
    names = {"__name__": "tutorial"}
    blocks = re.findall(r"```(\w+)\n(.*?)```", text, re.DOTALL)
    assert blocks
    for language, block in blocks:
        if language == "python":
            exec(compile(block, f"{page}.md", "exec"), names)
        else:
            assert language == "bash"
            for line in block.strip().splitlines():
                assert main(shlex.split(line, comments=True)[1:]) == 0, line


def test_every_tutorial_is_run():
    listed = {page if isinstance(page, str) else page.values[0] for page in PAGES}
    assert {path.stem for path in (ROOT / "docs" / "tutorial").glob("*.md")} == {*listed, "index"}


def test_every_public_name_has_an_entry_in_the_reference(hooks):
    pages = hooks.reference()
    for package in hooks.PACKAGES:
        names = importlib.import_module(package).__all__
        assert re.findall(rf"^::: {re.escape(package)}\.(\w+)$", pages[f"api/{package}.md"], re.MULTILINE) == sorted(
            names
        )
        assert f"]({package}.md)" in pages["api/index.md"]
    folders = {path.parent.name for path in (ROOT / "jaxmeta").glob("*/__init__.py")}
    exporting = {name for name in folders if getattr(importlib.import_module(f"jaxmeta.{name}"), "__all__", [])}
    assert {f"jaxmeta.{name}" for name in exporting} <= set(hooks.PACKAGES)


def test_the_catalogue_has_every_setting_option_and_card(hooks):
    pages = hooks.catalogue()
    names = catalogue.names()
    for name in names["Algorithms"]:
        for setting in catalogue.settings_of_algorithm(name):
            assert f"| {setting.name} | {setting.default} |" in pages[f"catalogue/algorithms/{name}.md"]
    for name in names["Task distributions"]:
        for option in catalogue.options_of_family(name):
            assert f"| {option.name} | " in pages[f"catalogue/tasks/{name}.md"]
    for name in names["Pretrained learners"]:
        assert "jaxmeta evaluate" in pages[f"catalogue/pretrained/{name}.md"]
    assert all(f"/{name}.md)" in pages["catalogue/index.md"] for lines in names.values() for name in lines)


def test_messages_that_the_faq_quotes_are_those_of_the_library(capsys, tmp_path, monkeypatch):
    """Those that a command line alone brings about."""
    monkeypatch.chdir(tmp_path)
    page = (ROOT / "docs" / "faq.md").read_text()
    lines = [
        "train maml grid_navi --set lr=0.1",
        "train maml grid_nav",
        "train maml tasks_of_mine:make",
        "train rl2 maze --set tasks_per_batch=6",
        "train reptile grid_navi --sweep num_steps=1,2",
        "train maml gymnax:id=CartPole-v1",
    ]
    for line in lines:
        assert main(line.split()) == 2
        assert f"```\n{capsys.readouterr().err}```" in page, line
    assert page.count("\n## ") == 10

"""The shape of the code: packages import one way, no modules import each other, and modules stay small."""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import jaxmeta
import jaxmeta_envs

ROOT = Path(__file__).parent.parent
HOME, ENVS = Path(jaxmeta.__file__).parent, Path(jaxmeta_envs.__file__).parent
RANK = {
    **{"core": 0, "nets": 1, "rl": 2, "inner": 3, "outer": 3},
    **{"algorithms": 4, "training": 5, "evaluation": 6, "reporting": 7, "cli": 8},
}
"""A package imports itself and what ranks below it, and nothing that ranks with it."""
ENGINE = ("core", "nets", "rl", "inner", "outer", "algorithms", "training", "evaluation")
"""Where what is computed is computed."""
MOST_ENTRIES = 11
MOST_PARAMETERS = 7
MOST_LINES = 300


def module_of(path: Path) -> str:
    parts = path.relative_to(HOME.parent if path.is_relative_to(HOME) else ENVS.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


SOURCES = {module_of(path): path for folder in (HOME, ENVS) for path in folder.rglob("*.py")}


def imported(module: str) -> set[str]:
    """Our modules that a module imports, wherever in the file, but for those that only types need."""
    found = set()
    tree = ast.parse(SOURCES[module].read_text())
    for_types = [
        node for node in ast.walk(tree) if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
    ]
    ignored = {id(inner) for node in for_types for inner in ast.walk(node)}
    for node in ast.walk(tree):
        if id(node) in ignored:
            continue
        if isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
    return (found & SOURCES.keys()) - {module}


IMPORTS = {module: imported(module) for module in SOURCES}


def package_of(module: str) -> str | None:
    parts = module.split(".")
    return parts[1] if parts[0] == "jaxmeta" and len(parts) > 1 else None


def test_packages_import_one_way():
    upward = [
        f"{module} imports {other}"
        for module, others in IMPORTS.items()
        for other in others
        if (package := package_of(module)) and (of_other := package_of(other)) and package != of_other
        if RANK[of_other] >= RANK[package]
    ]
    assert not upward


def test_no_modules_import_each_other():
    """Not by way of others either: each module is taken away once all that it imports are."""
    waiting = {module: others - {module.rpartition(".")[0]} for module, others in IMPORTS.items()}
    while ready := {module for module, others in waiting.items() if not others & waiting.keys()}:
        waiting = {module: others for module, others in waiting.items() if module not in ready}
    assert not waiting


def test_the_engine_imports_no_environment():
    text = {module: SOURCES[module].read_text() for module in SOURCES if module.startswith("jaxmeta.")}
    roots = {
        (module, name.split(".")[0])
        for module, source in text.items()
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.ImportFrom | ast.Import)
        for name in ([node.module or ""] if isinstance(node, ast.ImportFrom) else [alias.name for alias in node.names])
    }
    found = {(module, root) for module, root in roots if root in ("gymnax", "jaxmeta_envs")}
    assert found == {("jaxmeta.core.tasks", "jaxmeta_envs")}, "which has the names of our families"


def test_adapters_get_agents_as_values():
    """What they take from where agents are made is the type of a configuration, and where hyper-parameters start."""
    agents = {f"jaxmeta.rl{module}" for module in ("", ".agents", ".q_learning", ".actor_critic")}
    taken = {
        alias.name
        for module, path in SOURCES.items()
        if package_of(module) == "inner"
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ImportFrom) and node.module in agents
        for alias in node.names
        if f"jaxmeta.rl.{alias.name}" not in SOURCES.keys() - agents
    }
    assert taken == {"QLearningConfig", "hyperparameters"}


def test_algorithms_are_found_by_their_names_alone():
    """So that naming one imports no other."""
    ours = {module for module in SOURCES if package_of(module) == "algorithms"}
    assert not IMPORTS["jaxmeta.algorithms.registry"] & ours


def test_ten_packages_and_nothing_beside_them():
    entries = {path.name for path in HOME.iterdir()} - {"__pycache__"}
    assert entries == {*RANK, "__init__.py"}
    assert len(entries) <= MOST_ENTRIES


@pytest.mark.parametrize("package", RANK)
def test_a_package_says_what_lives_in_it(package):
    documented = ast.get_docstring(ast.parse((HOME / package / "__init__.py").read_text())) or ""
    modules = {path.stem for path in (HOME / package).glob("*.py")} - {"__init__", "__main__"}
    assert not [module for module in modules if f"`{module}`" not in documented]
    assert len(documented.splitlines()) <= 8


def test_nine_modules_in_ten_are_small():
    lengths = sorted(len(path.read_text().splitlines()) for path in SOURCES.values())
    assert lengths[len(lengths) * 9 // 10] < MOST_LINES


@pytest.mark.parametrize(
    "page",
    ["README.md", "CONTRIBUTING.md", *(str(path.relative_to(ROOT)) for path in sorted((ROOT / "docs").rglob("*.md")))],
)
def test_files_that_the_guides_name_exist(page):
    homes = [ROOT, HOME, ENVS, ROOT / "benchmarks", ROOT / "envs", ROOT / "tests"]
    named = re.findall(r"`([\w/]+\.py)[`:]", (ROOT / page).read_text())
    assert not [path for path in named if not any((home / path).is_file() for home in homes)]


def functions_of(package: str) -> Iterator[tuple[str, list[str]]]:
    """Functions and methods of a package, those within others too, and their parameters but for `self` and options."""
    for module in sorted(module for module in SOURCES if package_of(module) == package):
        for node in ast.walk(ast.parse(SOURCES[module].read_text())):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
                given = node.args
                named = [argument.arg for argument in (*given.posonlyargs, *given.args, *given.kwonlyargs)]
                rest = [given.vararg.arg] if given.vararg else []
                yield f"{module}.{getattr(node, 'name', 'lambda')}", [*rest, *(set(named) - {"self", "cls"})]


@pytest.mark.parametrize("package", ENGINE)
def test_functions_take_few_parameters(package):
    found = list(functions_of(package))
    assert found
    assert not [(name, parameters) for name, parameters in found if len(parameters) > MOST_PARAMETERS]


def test_every_setting_is_declared_once_and_by_whoever_reads_it():
    """Configurations live beside what they configure: a record is a subclass of `Config` in a module of the engine."""
    homes: dict[str, list[str]] = {}
    for module, path in SOURCES.items():
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ClassDef) and node.name.endswith("Config"):
                homes.setdefault(node.name, []).append(module)
    assert {name: modules for name, modules in homes.items() if len(modules) > 1} == {}
    assert {package_of(module) for modules in homes.values() for module in modules} <= {*ENGINE}


def test_importing_the_package_imports_no_jax():
    light = ("jaxmeta", "jaxmeta_envs", "jaxmeta.core.settings", "jaxmeta.cli.options", "jaxmeta.cli.main", "sys")
    code = f"import {', '.join(light)}; assert not {{'jax', 'gymnax', 'orbax'}} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_the_walk_through_a_meta_step_names_the_lines_of_today():
    """Six files for MAML, five for RL^2."""
    guide = (ROOT / "docs" / "architecture.md").read_text()
    hops = re.findall(r"^\d\. `(jaxmeta/[\w/]+\.py)`, line (\d+) \(`(\w+)`\)", guide, re.MULTILINE)
    assert len(hops) == 6 + 5
    for path, line, name in hops:
        text = (ROOT / path).read_text().splitlines()[int(line) - 1]
        assert re.match(rf"\s*(def|class) {name}\(", text), f"{name} is not at line {line} of {path}"

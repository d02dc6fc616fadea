"""The shape of the code: imports point one way, and setting names are unique."""

import ast
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import jaxmeta
from jaxmeta.settings import GROUPS

SOURCES = Path(jaxmeta.__file__).parent
LAYERS = [
    {"errors", "base", "synonyms", "tracebacks"},
    {"plugins", "contracts", "fields"},
    {
        "trees",
        "scans",
        "config",
        "settings",
        "tasks",
        "statistics",
        "costs",
        "interrupts",
        "compilation",
        "compilation_cache",
        "devices",
        "hosts",
    },
    {
        "losses",
        "advantages",
        "networks",
        "replay",
        "distributions",
        "memories",
        "encoders",
        "generators",
        "maps",
        "update_rules",
        "learned_rules",
    },
    {"agents", "adapters", "lifetime", "hypernetworks", "mappings"},
    {"objectives"},
    {"outer"},
    {"presets", "reads", "recipes", "methods", "composition", "populations"},
    {"checkpoints", "runs", "journal", "measurement", "chunks"},
    {
        *("baselines", "baseline_cache", "tuned_baselines", "jobs", "bookkeeping"),
        *("exports", "cells", "command_lines", "pretrained"),
    },
    {"comparison", "columns"},
    {"training", "evaluation", "inspection", "plots", "progress", "tables", "timings"},
    {"report"},
    {"cli", "commands"},
]
LAYER = {module: depth for depth, modules in enumerate(LAYERS) for module in modules}
MODULES = sorted(
    path for path in SOURCES.rglob("*.py") if path.relative_to(SOURCES).parts[0] not in ("__init__.py", "__main__.py")
)


def top(path: Path) -> str:
    return path.relative_to(SOURCES).parts[0].removesuffix(".py")


def imported(path: Path) -> set[str]:
    """Top-level modules of jaxmeta that a file imports, wherever in the file."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module == "jaxmeta":
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("jaxmeta."):
            found.add(node.module.split(".")[1])
        elif isinstance(node, ast.Import):
            found |= {alias.name.split(".")[1] for alias in node.names if alias.name.startswith("jaxmeta.")}
    return found


def test_imports_point_one_way():
    upward = [
        f"{path.relative_to(SOURCES)} imports {name}, which stands above it"
        for path in MODULES
        for name in imported(path) - {top(path)}
        if LAYER[name] > LAYER[top(path)]
    ]
    assert not upward


def test_the_engine_imports_no_environment():
    offenders = {
        str(path.relative_to(SOURCES))
        for path in MODULES
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in ("gymnax", "jaxmeta_envs")
    }
    assert not offenders


def test_adapters_get_agents_as_values():
    assert not [path.name for path in MODULES if top(path) == "adapters" and "agents" in imported(path)]


def test_setting_names_are_unique():
    names = [field.name for group in GROUPS.values() for field in fields(group)]
    assert len(names) == len(set(names))


def test_importing_the_package_imports_no_jax():
    code = "import jaxmeta, jaxmeta_envs, sys; assert not {'jax', 'gymnax', 'orbax'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)

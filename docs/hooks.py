"""Pages of the site that are made from the code: the catalogue, the reference, and the gallery.

MkDocs calls `on_files` and `on_config`. Nothing here is a list of names: pages follow `__all__`, the registries and the
files that are there.
"""

import functools
import importlib
import json
import re
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parent.parent
PACKAGES = {
    "jaxmeta": "The public names of the library: runs, algorithms with their configurations, plots, errors.",
    "jaxmeta.core": "Types, configurations, the one loop that steps environments, errors.",
    "jaxmeta.nets": "Flax modules: networks, memories, set encoders, generators of parameters.",
    "jaxmeta.rl": "Single-task reinforcement learning: losses, advantages, distributions, replay, agents.",
    "jaxmeta.inner": "How a learner adapts within a lifetime.",
    "jaxmeta.outer": "How meta-parameters are trained.",
    "jaxmeta.training": "Jobs, the loop, checkpoints, seeds.",
    "jaxmeta.evaluation": "Returns, scores, tuned baselines, statistics.",
    "jaxmeta_envs": "Task families.",
}
"""The packages of the reference, each with a line."""


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds the pages that are made from the code, and the notebooks."""
    for path, content in {**catalogue(), **reference(), **gallery()}.items():
        files.append(File.generated(config, path, content=content))
    for path in sorted((ROOT / "notebooks").glob("*.ipynb")):
        files.append(File.generated(config, f"notebooks/{path.name}", abs_src_path=str(path)))
    picture = ROOT / "benchmarks" / "results" / "scoreboard.png"
    files.append(File.generated(config, "benchmarks/results/scoreboard.png", abs_src_path=str(picture)))
    return files


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Spells the entries of the navigation that name a folder."""
    made = sorted(
        [*catalogue(), *reference(), *(f"experiments/{path.name}" for path in ROOT.glob("docs/experiments/*"))]
    )
    config["nav"] = [_spelled(entry, made) for entry in config["nav"]]
    return config


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Leads links that leave the documentation to the repository, and gives pictures of results their place here."""
    repository = "https://github.com/jaxmeta/jaxmeta/blob/main"
    depth = page.file.src_uri.count("/")
    markdown = markdown.replace("../benchmarks/results/scoreboard.png", "benchmarks/results/scoreboard.png")
    out = re.escape("../" * (depth + 1))
    return re.sub(rf"\]\({out}(?!notebooks/)([^)#]+)\)", rf"]({repository}/\1)", markdown)


def on_page_content(html: str, **_: Any) -> str:
    """Links public names in running text to their place in the reference."""
    places = public_names()

    def linked(found: re.Match[str]) -> str:
        name = found[1]
        place = places.get(name.removeprefix("jaxmeta."))
        return f'<autoref identifier="{place}" optional><code>{name}</code></autoref>' if place else found[0]

    def paragraph(found: re.Match[str]) -> str:
        return re.sub(r"(?<!\">)<code>([\w.]+)</code>(?!</a>|</autoref>)", linked, found[0])

    return re.sub(r"<(p|li|td)\b.*?</\1>", paragraph, html, flags=re.DOTALL)


@functools.cache
def public_names() -> dict[str, str]:
    """The place of every public name in the reference, by the name alone; of several the first package's."""
    places: dict[str, str] = {}
    for package in PACKAGES:
        for name in importlib.import_module(package).__all__:
            places.setdefault(name, f"{package}.{name}")
    return places


def catalogue() -> dict[str, str]:
    """A page for every algorithm, task family and pretrained learner, and one that lists them."""
    from jaxmeta.reporting import catalogue
    from jaxmeta.training import pretrained

    names = catalogue.names()
    pages = {"catalogue/index.md": _list_of(names)}
    for name, summary in names["Algorithms"].items():
        text = [
            f"# {name}\n\n{summary}\n",
            _table(["setting", "default", "values", "meaning"], catalogue.settings_of_algorithm(name)),
        ]
        for family, changed in catalogue.settings_by_family(name).items():
            pairs = " ".join(f"`{setting}={value}`" for setting, value in changed.items())
            text += ["\n## What a task family changes\n"] if "## What" not in "".join(text) else []
            text.append(f"- **{family}**: {pairs}")
        text.append(f"\nIn Python: [`jaxmeta.{name}`][jaxmeta.{name}]. On the command line: `jaxmeta train {name}`.")
        pages[f"catalogue/algorithms/{name}.md"] = "\n".join(text) + "\n"
    for name in names["Task distributions"]:
        rows = [(option.name, option.default, option.about) for option in catalogue.options_of_family(name)]
        table = _table(["option", "default", "meaning"], rows) if rows else "It has no options.\n"
        line = f"\nUse: `jaxmeta train maml {name}`, with options `{name}:key=value,key=value`."
        pages[f"catalogue/tasks/{name}.md"] = f"# {name}\n\n{catalogue.summary_of_family(name)}\n\n{table}{line}\n"
    for name in names["Pretrained learners"]:
        card = pretrained.card(name)
        facts = catalogue.facts_of_card(name, card)
        rows = [
            (fact, "<br>".join(f"`{line}`" if fact in ("run it", "made by", "digest") else line for line in lines))
            for fact, lines in facts.items()
        ]
        settings = json.dumps(card["config"]["settings"], indent=2)
        text = f"# {name}\n\n{card['summary']}\n\n{_table(['', ''], rows)}\n## Settings\n\n```json\n{settings}\n```\n"
        pages[f"catalogue/pretrained/{name}.md"] = text
    return pages


def reference() -> dict[str, str]:
    """A page for every package with all of its public names."""
    rows = [(f"[{package}]({package}.md)", line) for package, line in PACKAGES.items()]
    pages = {
        "api/index.md": "# Reference\n\nEvery public name, by package, from its docstring.\n\n"
        + _table(["package", ""], rows)
    }
    for package, line in PACKAGES.items():
        module = importlib.import_module(package)
        entries = "\n\n".join(f"::: {package}.{name}" for name in sorted(module.__all__))
        pages[f"api/{package}.md"] = f"# {package}\n\n{line}\n\n{entries}\n"
    return pages


def gallery() -> dict[str, str]:
    """A page of the animations in `docs/images/gallery`, each with the command that makes it."""
    captions = json.loads((ROOT / "docs" / "images" / "gallery" / "captions.json").read_text())
    marks = "The green mark is the goal, which no learner sees."
    text = [f"# Gallery\n\nLearners in tasks that they have not seen, by `jaxmeta show`. {marks}\n"]
    for name, caption in captions.items():
        picture = f"![{caption['title']}](images/gallery/{name})"
        text.append(f"## {caption['title']}\n\n{caption['text']}\n\n{picture}\n\n```\n{caption['command']}\n```\n")
    return {"gallery.md": "\n".join(text)}


def _list_of(names: dict[str, dict[str, str]]) -> str:
    folders = {"Algorithms": "algorithms", "Task distributions": "tasks", "Pretrained learners": "pretrained"}
    parts = [
        "# Catalogue\n\nEverything there is to choose from; `jaxmeta list` and `jaxmeta list NAME` print the same.\n"
    ]
    for heading, lines in names.items():
        rows = [(f"[{name}]({folders[heading]}/{name}.md)", line) for name, line in lines.items()]
        parts.append(f"## {heading}\n\n{_table(['name', ''], rows)}")
    return "\n".join(parts)


def _table(headings: list[str], rows: Any) -> str:
    lines = [headings, ["---"] * len(headings), *rows]
    return "\n".join("| " + " | ".join(str(cell).replace("|", "\\|") for cell in line) + " |" for line in lines) + "\n"


def _spelled(entry: Any, made: list[str]) -> Any:
    if not isinstance(entry, dict):
        return entry
    ((title, value),) = entry.items()
    if isinstance(value, list):
        return {title: [_spelled(each, made) for each in value]}
    if value.endswith("/"):
        inside = [path for path in made if path.startswith(value)]
        return {title: sorted(inside, key=lambda path: (not path.endswith("index.md"), path))}
    return entry

"""The page of `jaxmeta report`, and the table of a README; the page also in a browser, where there is one."""

import itertools
import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import pytest

from jaxmeta.cli.main import USAGE_STATUS, main
from jaxmeta.reporting import comparison
from jaxmeta.reporting import html as report
from tests import boards

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """The page of a scoreboard with something missing."""
    folder = tmp_path_factory.mktemp("board")
    boards.write(folder, boards.board())
    (folder / "grid_navi-anil.cell.json").write_text("{<")
    boards.write(folder, [boards.cell("mann", 0.7, tasks="maze")])
    beside = ["--markdown", str(folder / "t.md"), "--picture", str(folder / "scores.png")]
    assert main(["report", str(folder), "--out", str(folder / "page.html"), *beside]) == 0
    return folder / "page.html"


def test_a_page_holds_all_it_needs(page):
    text = page.read_text()
    assert not re.search(r'(src|href)="(?!#)', text.replace('xlink:href="#', "")), "nothing is fetched"
    assert "@import" not in text
    assert text.count("<svg") == text.count('<svg role="img" aria-label="') == 4, "all families, and each of three"

    opened = []

    class Balanced(HTMLParser):
        def handle_starttag(self, tag, attributes):
            if tag not in ("meta", "br", "path", "use", "rect"):
                opened.append(tag)

        def handle_endtag(self, tag):
            if tag not in ("meta", "br", "path", "use", "rect"):
                assert opened.pop() == tag

    Balanced().feed(text)
    assert opened == []
    identifiers = re.findall(r'\bid="([^"]+)"', text)
    assert len(identifiers) == len(set(identifiers))


def test_the_overview_comes_first_then_findings_families_and_what_is_missing(page):
    headings = re.findall(r'<h2 id="([^"]+)"', page.read_text())
    assert headings == ["overview", "findings-heading", "family-0", "family-1", "family-2", "missing-heading"]


def test_every_cell_shows_its_command_and_what_is_missing_is_named(page):
    text = page.read_text()
    for cell in boards.board():
        assert cell["commands"][0] in text
    assert "grid_navi-anil.cell.json" in text
    assert text.count('class="better"') > 0 < text.count('class="worse"')


def test_a_name_is_no_markup(tmp_path):
    boards.write(tmp_path, [boards.cell("<script>alert(1)</script>".replace("/", "-"), device="<b>")])
    assert main(["report", str(tmp_path), "--out", str(tmp_path / "page.html")]) == 0
    text = (tmp_path / "page.html").read_text()
    assert "<script>alert" not in text
    assert "<b>" not in text


def test_the_table_marks_wins_and_losses(page):
    table = page.with_name("t.md").read_text()
    lines = {line.split("|")[1].strip(): line for line in table.splitlines() if line.startswith("| `")}
    assert lines["`maml`"].count("▲") == 2
    assert lines["`reptile`"].count("▼") == 2
    assert "▲" not in lines["`rl2`"]
    assert "`oracle`" not in lines
    assert "grid_navi-anil.cell.json" in table
    found = [*boards.board(), boards.cell("mann", 0.7, tasks="maze")]
    assert table.startswith(report.markdown(comparison.rows(found)).rstrip())
    assert page.with_name("scores.png").read_bytes().startswith(b"\x89PNG")


def test_the_table_shows_the_best_policy_that_was_written_for_a_family():
    written = [
        boards.cell(name, mean, tasks="bandit", kind="reference") for name, mean in (("ucb1", 0.8), ("greedy", 0.3))
    ]
    found = [*boards.board(), *written]
    last = report.markdown(comparison.rows(found)).splitlines()[-1]
    score = next(row["score"] for row in comparison.rows(found) if row["name"] == "ucb1")
    assert last == f"| a policy written for it | {score:.2f} `ucb1` | – | |"


def test_a_family_without_a_score_is_not_counted():
    without = boards.cell("maml", 0.9, tasks="maze")
    without = {**without, "points": [{**point, "scores": None} for point in without["points"]]}
    found = [boards.cell("maml", 0.9), without]
    table = report.markdown(comparison.rows(found))
    assert table.splitlines()[2].endswith(" ? |  |"), "no mean over all families"


def test_compare_prints_rows_and_what_is_missing(page, capsys, tmp_path):
    assert main(["compare", str(page.parent), "--json", str(tmp_path / "rows.json")]) == 0
    out = capsys.readouterr().out
    assert "no difference shown" in out
    assert "grid_navi-anil.cell.json" in out
    reported = json.loads((tmp_path / "rows.json").read_text())
    assert len(reported["rows"]) == len(boards.board()) + 1
    assert len(reported["missing"]) == 2, "the damaged cell, and those that only some families have"


@pytest.mark.parametrize("verb", [["compare"], ["report", "--out", "page.html"]])
def test_where_there_is_nothing_it_is_told(tmp_path, capsys, monkeypatch, verb):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "grid_navi-maml.cell.json").write_text("{")
    for folder, sentence in (
        ("empty", "A folder to compare must hold an evaluated run, or cells of a scoreboard, got 'empty'."),
        ("broken", f"{str(Path('broken') / 'grid_navi-maml.cell.json')!r} must be a cell of a scoreboard, got "),
    ):
        assert main([*verb, folder]) == USAGE_STATUS
        assert sentence in capsys.readouterr().err
    assert main(verb) == USAGE_STATUS
    assert not list(tmp_path.glob("*.html"))


def test_a_privileged_method_has_a_star(tmp_path):
    boards.write(tmp_path, [*boards.board(["bandit"]), boards.cell("mapping", tasks="bandit", sees_context=True)])
    beside = ["--markdown", str(tmp_path / "t.md")]
    assert main(["report", str(tmp_path), "--out", str(tmp_path / "page.html"), *beside]) == 0
    table, text = (tmp_path / "t.md").read_text(), (tmp_path / "page.html").read_text()
    assert "| `mapping *` |" in table
    assert "- A method with a star receives privileged task information." in table
    assert text.count(">mapping *<") > 2
    assert "oracle *" not in text


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        (["--out", "p.html", "--markdown", "./p.html"], "--out, --markdown and --picture must differ, got ['p.html', "),
        (["--out", "p.html", "--picture", "p.foo"], "--picture must end in one of "),
        (["--out", "folder"], "--out must be a file in a folder that exists, got 'folder'."),
        (["--out", "none/p.html"], "--out must be a file in a folder that exists, got 'none/p.html'."),
    ],
)
def test_files_that_could_not_be_written_are_refused_before_any_is(tmp_path, capsys, monkeypatch, given, sentence):
    monkeypatch.chdir(tmp_path)
    boards.write(tmp_path / "folder", boards.board())
    before = sorted(tmp_path.rglob("*"))
    assert main(["report", "folder", *given]) == USAGE_STATUS
    assert capsys.readouterr().err.startswith(sentence)
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.slow
@pytest.mark.browser
@pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium on this machine")
def test_a_browser_shows_the_page_sorts_it_and_has_nothing_to_complain_of(page):
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    complaints, asked = [], []
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        shown = browser.new_page(viewport={"width": 1300, "height": 900})
        shown.on("console", lambda message: complaints.append(message.text))
        shown.on("pageerror", lambda error: complaints.append(str(error)))
        shown.on("request", lambda request: asked.append(request.url))
        shown.goto(page.as_uri())

        figures = shown.locator("figure svg")
        assert figures.count() == 4
        assert all(figures.nth(index).bounding_box()["height"] > 300 for index in range(4))
        assert shown.locator("h2").first.is_visible()

        table = shown.locator("#scores")
        column = table.locator("thead th").nth(1)

        def values():
            """Of the second column; what is missing comes last, in either direction."""
            read = "cells => cells.map(cell => cell.dataset.value)"
            *known, missing = table.locator("tbody td:nth-child(2)").evaluate_all(read)
            assert missing == "", "the method that was measured elsewhere"
            return [float(value) for value in known]

        column.locator("button").click()
        assert column.get_attribute("aria-sort") == "descending"
        assert values() == sorted(values(), reverse=True)
        column.locator("button").click()
        assert column.get_attribute("aria-sort") == "ascending"
        assert values() == sorted(values())
        table.locator("thead th button").first.click()
        names = table.locator("tbody td:first-child").all_inner_texts()
        assert names == sorted(names)
        browser.close()
    assert complaints == []
    assert asked == [page.as_uri()]


@pytest.mark.slow
@pytest.mark.browser
@pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium on this machine")
def test_the_page_fits_every_screen_and_passes_the_rules_of_accessibility(page):
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe-core is not installed")
    complaints = []
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        for scheme, width in itertools.product(("light", "dark"), (1400, 800, 390)):
            shown = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
            shown.on("console", lambda message: complaints.append(message.text))
            shown.on("pageerror", lambda error: complaints.append(str(error)))
            shown.goto(page.as_uri())
            measure = "[document.documentElement.scrollWidth, document.documentElement.clientWidth]"
            needed, there = shown.evaluate(measure)
            assert needed <= there, f"something runs over at {width} pixels"
            found = axe.Axe().run(shown)
            assert found.violations_count == 0, f"{scheme}, {width}: {found.generate_report()}"
            shown.close()
        shown = browser.new_page()
        shown.goto(page.as_uri())
        column = shown.locator("#scores thead th").nth(1)
        column.locator("button").focus()
        shown.keyboard.press("Enter")
        assert column.get_attribute("aria-sort") == "descending"
        shown.keyboard.press("Space")
        assert column.get_attribute("aria-sort") == "ascending"
        browser.close()
    assert complaints == []

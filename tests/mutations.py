"""Plants the faults of `mutations.toml`, one at a time, in a copy of the checkout, and tells which test catches each.

    python tests/mutations.py                                       every fault against its likely tests, fast tier
    python tests/mutations.py --tier full --whole --anew --docs     the final run: all tiers, and the table of the guide
    python tests/mutations.py --only "n-step windows"               faults whose name holds this text

What has been told already is not run again, unless --anew: a run that was interrupted goes on. A fault meets its likely
tests first, and the whole tier only if they let it pass and --whole says so. The full tier is asked only for faults
that the fast one lets pass. At the end every test that caught a fault must pass on the sources as they are.
"""

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
FAULTS = Path(__file__).with_suffix(".toml")
RESULTS = ROOT / "benchmarks" / "results" / "mutations.jsonl"
GUIDE = ROOT / "docs" / "developing.md"
TABLE = "<!-- table of faults: tests/mutations.py --docs -->\n", "<!-- end of the table -->\n"
"""Between which the guide holds the table."""
TIERS = {"fast": "not slow", "full": "slow or not slow"}
"""By tier, the marks that are selected, whatever pytest selects by itself."""
LONGEST = 1800
"""Seconds that the tests of one fault may take; beyond, the fault counts as caught."""
NOTHING_COLLECTED = 5


def main() -> int:
    """Does what is asked; returns 1 where a fault cannot be planted, or what caught one fails without it, too."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tier", choices=TIERS, default="fast", help="full adds what is marked slow")
    parser.add_argument("--only", metavar="NAME", action="append", default=[], help="faults whose name holds this text")
    parser.add_argument("--whole", action="store_true", help="the whole tier where the likely tests catch nothing")
    parser.add_argument("--anew", action="store_true", help="run again what has been told already")
    parser.add_argument("--check", action="store_true", help="only check that every fault can be planted")
    parser.add_argument("--docs", action="store_true", help="write the table of the guide from the results")
    parser.add_argument(
        "--out", type=Path, default=RESULTS, metavar="FILE", help="the results, a line of JSON for each"
    )
    parser.add_argument("--cache", metavar="DIR", help="keeps compiled programs for the next time")
    options = parser.parse_args()

    faults = tomllib.loads(FAULTS.read_text(encoding="utf-8"))["fault"]
    chosen = [one for one in faults if not options.only or any(part in one["name"] for part in options.only)]
    misfits = [fault["name"] for fault in chosen if text_of(ROOT, fault).count(fault["old"]) != 1]
    for name in misfits:
        print(f"The fault {name!r} is left out: old must stand in its file exactly once.")
    if options.check:
        return 1 if misfits else 0
    chosen = [fault for fault in chosen if fault["name"] not in misfits]
    reported = {(row["fault"], row["tier"]): row for row in read(options.out)}
    if options.anew:
        reported = {key: row for key, row in reported.items() if key[0] not in {fault["name"] for fault in chosen}}
        write(options.out, reported.values())
    sound = not misfits
    with tempfile.TemporaryDirectory(prefix="jaxmeta-mutations-") as folder:
        copy = Path(folder) / "jaxmeta"
        copy_tracked(copy)
        run = Pytest(copy, options.cache or f"{folder}/programs")
        caught_by = set()
        for row in outcomes(chosen, list(TIERS)[: 1 + list(TIERS).index(options.tier)], reported, run, options.whole):
            reported[row["fault"], row["tier"]] = row
            write(options.out, reported.values())
            caught_by |= {row["by"]} if row["caught"] else set()
            print(f"{row['seconds']:6.1f} s  {row['tier']}  {row['fault']}: {row['by'] or 'NOT CAUGHT'}", flush=True)
        if tests := sorted(test for test in caught_by if "::" in test):
            failing = run.all(tests)
            for test in failing:
                sound = False
                print(f"{test} fails without a fault, too; what it caught is not told.")
            reported = {key: row for key, row in reported.items() if row["by"] not in failing}
            write(options.out, reported.values())
    if options.docs:
        before, _, rest = GUIDE.read_text(encoding="utf-8").partition(TABLE[0])
        _, _, after = rest.partition(TABLE[1])
        GUIDE.write_text(f"{before}{TABLE[0]}\n{table(faults, reported)}\n{TABLE[1]}{after}", encoding="utf-8")
    return 0 if sound else 1


def outcomes(
    faults: Sequence[dict], tiers: Sequence[str], reported: dict, run: "Pytest", whole: bool
) -> Iterator[dict]:
    """What becomes of each fault in each tier, if it is not known; a fault that a tier catches meets no later one."""
    for fault in faults:
        for tier in tiers:
            row = reported.get((fault["name"], tier))
            if row is None or (whole and not row["caught"] and row["ran"] == "likely"):
                start, ran = time.monotonic(), "likely"
                with planted(run.copy, fault):
                    by = None if row else run.first_failure(tier, fault["likely"])
                    if by is None and whole:
                        by, ran = run.first_failure(tier, ()), "whole"
                seconds = round(time.monotonic() - start, 1)
                what = {"fault": fault["name"], "file": fault["file"], "tier": tier}
                row = {**what, "caught": by is not None, "by": by, "ran": ran, "seconds": seconds}
                yield row
            if row["caught"]:
                break


class Pytest:
    """Runs tests of a copy of the checkout, on the sources of the copy."""

    def __init__(self, copy: Path, cache: str):
        self.copy = copy
        paths = [copy, copy / "envs", copy / "benchmarks"]
        self.environment = os.environ | {
            "PYTHONPATH": os.pathsep.join(map(str, paths)),
            "PYTHONDONTWRITEBYTECODE": "1",
            "JAX_COMPILATION_CACHE_DIR": cache,  # by the content of a program: of a fault another than without
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.3",
        }
        code = "import jaxmeta, jaxmeta_envs; print(jaxmeta.__file__, jaxmeta_envs.__file__)"
        found = self._run(["-c", code]).stdout.split()
        assert all(Path(file).is_relative_to(copy) for file in found), found

    def first_failure(self, tier: str, tests: Sequence[str]) -> str | None:
        """The first of some tests, or of all, that fails in a tier; None where all pass or the tier has none."""
        try:
            done = self._run(["-m", "pytest", "-x", *QUIET, "-m", TIERS[tier], *tests])
        except subprocess.TimeoutExpired:
            return f"the limit of {LONGEST} s"
        if done.returncode in (0, NOTHING_COLLECTED):
            return None
        if done.returncode < 0:
            return f"a crash by signal {-done.returncode}"
        failed = failures(done.stdout)
        if not failed:
            sys.exit(f"pytest ended with status {done.returncode}:\n{done.stdout[-3000:]}{done.stderr[-3000:]}")
        return failed[0]

    def all(self, tests: Sequence[str]) -> list[str]:
        """Those of some tests that fail."""
        done = self._run(["-m", "pytest", *QUIET, "-m", TIERS["full"], *tests], limit=None)
        failed = failures(done.stdout)
        if bool(failed) != bool(done.returncode):
            sys.exit(f"pytest ended with status {done.returncode}:\n{done.stdout[-3000:]}{done.stderr[-3000:]}")
        return failed

    def _run(self, arguments: Sequence[str], limit: float | None = LONGEST) -> subprocess.CompletedProcess:
        command = [sys.executable, *arguments]
        return subprocess.run(
            command, cwd=self.copy, env=self.environment, capture_output=True, text=True, check=False, timeout=limit
        )


QUIET = ("-q", "-p", "no:cacheprovider", "-rfE", "--tb=no")


def failures(output: str) -> list[str]:
    """Node ids of what failed, as pytest sums it up."""
    return re.findall(r"^(?:FAILED|ERROR) (.+?)(?: - .*)?$", output, re.MULTILINE)


@contextmanager
def planted(copy: Path, fault: dict) -> Iterator[None]:
    """Within it the copy has the fault."""
    sound = text_of(copy, fault)
    path = copy / fault["file"]
    path.write_text(sound.replace(fault["old"], fault["new"]), encoding="utf-8")
    try:
        yield
    finally:
        path.write_text(sound, encoding="utf-8")


def text_of(root: Path, fault: dict) -> str:
    """The file that a fault is planted in."""
    path = root / fault["file"]
    return path.read_text(encoding="utf-8") if path.is_file() else ""


def copy_tracked(copy: Path) -> None:
    """Copies every tracked file, as it stands in the working tree."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for name in filter(None, listed.split("\0")):
        if (ROOT / name).is_file():
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, copy / name)


def read(path: Path) -> list[dict[str, Any]]:
    """Outcomes so far."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.is_file() else []


def write(path: Path, rows: Iterable[dict[str, Any]]) -> None:
    """Replaces the outcomes so far, whole; they are sorted, so that what runs in another order changes no line."""
    temporary = path.with_name(f".{path.name}")
    ordered = sorted(rows, key=lambda row: (row["fault"], list(TIERS).index(row["tier"])))
    temporary.write_text("".join(json.dumps(row) + "\n" for row in ordered), encoding="utf-8")
    temporary.replace(path)


def table(faults: Sequence[dict], reported: dict[tuple[str, str], dict[str, Any]]) -> str:
    """The outcomes as a table in Markdown, with how many of the faults each tier catches."""

    def cell(row: dict[str, Any] | None) -> str:
        if row is None:
            return "not run"
        if not row["caught"]:
            return "**nothing**" if row["ran"] == "whole" else "none of the likely tests"
        return f"`{row['by'].removeprefix('tests/')}`" if "::" in row["by"] else row["by"]

    lines = ["| fault | file | caught by (fast) | caught by (full) |", "|---|---|---|---|"]
    caught = dict.fromkeys(TIERS, 0)
    for fault in faults:
        fast, full = (reported.get((fault["name"], tier)) for tier in TIERS)
        in_fast = fast is not None and fast["caught"]
        caught["fast"] += in_fast
        caught["full"] += in_fast or (full is not None and full["caught"])
        file = fault["file"].removeprefix("envs/")
        lines.append(f"| {fault['name']} | `{file}` | {cell(fast)} | {'the same' if in_fast else cell(full)} |")
    total = len(faults)
    return f"Caught: {caught['fast']} of {total} by the fast tier, {caught['full']} by the full one.\n\n" + "\n".join(
        lines
    )


if __name__ == "__main__":
    sys.exit(main())

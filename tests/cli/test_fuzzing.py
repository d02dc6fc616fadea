"""Malformed input of every kind: refused in one sentence, with status 2, and nothing is written.

Parsing, reading, composing and refusing are the real thing; where work would begin, a trial ends.
"""

import contextlib
import io
import json
import os
import subprocess
import sys
from types import SimpleNamespace
from typing import NamedTuple

import jax
import pytest
from hypothesis import configuration, given, settings
from hypothesis import strategies as st

from jaxmeta.cli import commands
from jaxmeta.cli.main import USAGE_STATUS, _setting_names, main
from jaxmeta.core import compilation_cache, tasks
from jaxmeta.evaluation import evaluate as evaluation
from jaxmeta.evaluation import statistics
from jaxmeta.reporting import inspection
from jaxmeta.training import checkpoints, jobs
from jaxmeta.training import loop as training
from tests import tiers
from tests.cli.test_main import canned_evaluation, snapshot, subprocess_environment

OPENING = (
    ["inspect", "run"],
    ["evaluate", "run"],
    ["train", "--resume", "--run-dir", "run"],
    ["compare", "run"],
    ["report", "run", "--out", "page.html"],
    ["train", "--config", "run/config.json", "--run-dir", "empty"],
    ["compare", "run", "sound"],  # which goes on without a run that cannot be read, and says so
)


class Begun(BaseException):
    """The input was sound: here work would begin."""


class Answer(NamedTuple):
    """What a command did."""

    status: int
    out: str
    err: str


def begin(*arguments, **options):
    raise Begun


def ask(argv) -> Answer:
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            status = main(argv)
        except Begun:
            status = 0
    return Answer(status, out.getvalue(), err.getvalue())


def is_refusal(answer: Answer, argv) -> bool:
    """Whether it was refused, and if so, that it was told as it should be."""
    if answer.status == 0:
        return False
    assert answer.status == USAGE_STATUS, (argv, answer)
    assert len(answer.err.splitlines()) == 1, (argv, answer)
    assert answer.err.endswith((".\n", "?\n")), (argv, answer)
    assert answer.out == "", (argv, answer)
    return True


def fuzz(strategy, trial, examples: int) -> float:
    """Puts so many inputs, or as few as the tier allows, on trial; returns how many refusals each led to on average."""
    refused, examples = 0, min(examples, settings().max_examples)

    @settings(max_examples=examples)
    @given(strategy)
    def run(drawn):
        nonlocal refused
        refused += trial(drawn)

    run()
    return refused / examples


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    """What the files of a run hold, as bytes by name."""
    configuration.set_hypothesis_home_dir(tmp_path_factory.mktemp("hypothesis"))
    config = jobs.prepare("scratch", "probe", settings={"hidden": (4,), "meta_steps": 4}).config
    report = canned_evaluation(None, SimpleNamespace(step=4), tasks.make_tasks("probe"), config, on_stage=None)
    points = [{"meta_step": step, "env_steps": 30, "seconds": 1.0, "loss": 0.5, "return": 0.5} for step in (2, 4)]
    return {
        "config.json": json.dumps(config).encode(),
        "evaluation.json": json.dumps(report).encode(),
        "metrics.jsonl": b"".join(json.dumps(point).encode() + b"\n" for point in points),
    }


@pytest.fixture
def around(tmp_path, monkeypatch, sound):
    """The working directory: runs, a file and a folder. Where a command would train, evaluate or write, it ends."""
    for run in ("run", "sound"):
        (tmp_path / run).mkdir()
        for name, content in sound.items():
            (tmp_path / run / name).write_bytes(content)
    (tmp_path / "file").touch()
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path)
    work = ((training, "run_job"), (evaluation, "evaluate"), (inspection, "_compile"), (commands, "write_json"))
    work += ((commands.report, "write_html"),)
    for module, name in work:
        monkeypatch.setattr(module, name, begin)
    monkeypatch.setattr(
        checkpoints, "restore", lambda folder, like, best: like.replace(step=4)
    )  # its arrays are shapes
    monkeypatch.setattr(compilation_cache, "enable", lambda: None)
    monkeypatch.setattr(jax.distributed, "initialize", begin)
    monkeypatch.setattr(statistics, "RESAMPLES", 10)
    monkeypatch.setattr(checkpoints, "state_digest", lambda state: "0" * 64)
    return tmp_path


LONG = "x" * 300
NUMBERS = (
    *("", " ", "-1", "0", "-0", "1.5", "1e300", "1e400", "-1e400", "1e-400", "nan", "inf", "-inf", "0x10", "1_0"),
    *("two", "9" * 12, "9" * 30, "9" * 5000, "true", "None", "1,2", ",", "-1,2", "9" * 30 + ",2", "[4]", LONG),
)
PATHS = (
    *("", " ", ".", "..", "/", "//", "~", "run", "file", "file/x", "empty", "no/such", "empty/new", "a\nb", "\udcff"),
    *(os.devnull, f"{os.devnull}/x", LONG, "a/" * 3000, "empty/" + "é" * 200, "-", "[/]", ":apple:", "\u2028"),
)
NAMES = (
    *("", " ", "\n", "a\nb", ":", "::", "a:b", ":b", "a:", ".a:b", "..:b", "a..b:c", "a b:c", "a\nb:c", "\udcff:b"),
    *("builtins:dict", "math:pi", "json:", "no.such:thing", "jaxmeta:nothing", "os.path:join", "probe:", "probe:=1"),
    *("probe:number", "probe:number=1,number=2", "probe:number=x:y", "prob", "mamal", LONG, "[red]", "💥", "\x1b[31m"),
)
OPTIONS = (
    *("-", "--", "-h", "--seed", "--seed=", "--seed=x", "--seed=1", "--resume", "--resume=1", "--no-resume", "--set"),
    *("--json", "--json=", "--no-such", "--evaluate=1", "--no-evaluate", "--help=1", "--version", "--allow-import"),
    *("=", "a=b", "num_envs=", "num_envs=1", "=1", "extra", "ä", "九", "%s", "{0}", "'", '"', "\\", "│", "─" * 90),
)
SEVERAL = (
    *("", "0", "0-", "-3", "3-1", "0-0", "0,0", "0-9999999999", "0--3", "a-b", "0,", "1.5,2", "0-1-2", "٣-٤"),
    *("epsilon", "epsilon=", "epsilon=,", "epsilon=nan", "inner.learning_rate=x", "learning_rate=1", "hidden=4", "=1"),
)
PRINTABLE = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=8)
WORDS = st.one_of(
    *map(st.sampled_from, (NUMBERS, PATHS, NAMES, OPTIONS)), PRINTABLE, st.integers().map(str), st.floats().map(str)
)
FITTING = {
    **dict.fromkeys(("--seed", "--meta-steps", "--log-every", "--checkpoint-every", "--num-tasks"), NUMBERS),
    **dict.fromkeys(("--devices", "--num-processes", "--process-id"), NUMBERS),
    **dict.fromkeys(("--seeds", "--sweep"), SEVERAL),
    **dict.fromkeys(("--run-dir", "--json", "--out", "--markdown", "--config"), PATHS),
    **dict.fromkeys(("evaluate", "inspect", "compare", "report"), PATHS),
    **dict.fromkeys(("--algorithm", "--tasks", "--agent", "--split", "--on-nonfinite", "--coordinator"), NAMES),
    **dict.fromkeys(("--set", "train", "list"), OPTIONS),
}
"""After which word those of each kind are almost right."""
LINES = (
    ["list"],
    ["train", "scratch", "probe", "--agent", "dqn", "--seed", "0", "--meta-steps", "2"],
    ["train", "--config", "run/config.json", "--seed", "0", "--set", "hidden=4"],
    ["train", "--tasks", "probe", "--run-dir", "empty", "--log-every", "1", "--checkpoint-every", "1", "--no-evaluate"],
    ["train", "--resume", "--run-dir", "run", "--set", "meta_steps=5", "--set", "hidden=4"],
    ["train", "--algorithm", "scratch", "--tasks", "probe", "--seeds", "0-3", "--sweep", "epsilon=0.5,1"],
    ["train", "--tasks", "probe", "--coordinator", "host:1", "--num-processes", "2", "--process-id", "0"],
    ["train", "--tasks", "probe", "--on-nonfinite", "skip", "--on-write-error", "stop", "--devices", "1"],
    ["evaluate", "run", "--split", "test", "--num-tasks", "2", "--seed", "0", "--json", "file"],
    ["compare", "run", "sound", "--json", "file"],
    ["report", "run", "sound", "--out", "file", "--markdown", "other"],
    ["evaluate", "--pretrained", "maml", "--num-tasks", "2"],
    ["inspect", "run", "--json", "file"],
)


@st.composite
def command_lines(draw):
    """A command line with one to three of its words deleted, doubled, replaced or joined by others."""
    line = list(draw(st.sampled_from(LINES)))
    for _ in range(draw(st.integers(1, 3))):
        before = draw(st.sampled_from([*range(len(line)), -1]))
        how = draw(st.sampled_from(("delete", "double", "insert", *4 * ("replace",))))
        found = line[before + 1 : before + 2]
        fitting = FITTING.get(line[before]) if before >= 0 else None
        word = draw(st.sampled_from(fitting) if fitting and draw(st.booleans()) else WORDS)
        line[before + 1 : before + 2] = {
            "delete": [],
            "double": 2 * found,
            "replace": [word],
            "insert": [word, *found],
        }[how]
    return line


SETTINGS = st.builds(
    lambda name, value, algorithm: ["train", algorithm, "probe", "--set", f"{name}={value}"],
    st.sampled_from(sorted(_setting_names())),
    st.one_of(st.sampled_from(NUMBERS), WORDS),
    st.sampled_from(("scratch", "maml", "rl2", "learned_optimizer", "mapping")),
)
FAMILIES = {
    "bandit": ("arms", "pulls"),
    "cartpole": ("horizon", "signs"),
    "grid_navi": ("size", "horizon", "goals", "holdout"),
    "gymnax": ("id", "vary", "horizon"),
    "maze": ("size", "horizon"),
    "point_navigation": ("horizon", "directions"),
    "probe": ("number",),
    "recommender": ("items", "features", "session", "window", "drift"),
    "tabular_mdp": ("states", "actions", "horizon", "episodes"),
}
VALUES = st.one_of(st.sampled_from(NUMBERS), WORDS)
SPECIFICATIONS = st.one_of(
    st.sampled_from([f"{family}:{option}" for family, options in FAMILIES.items() for option in options]).flatmap(
        lambda option: VALUES.map(lambda value: f"{option}={value}")
    ),
    st.lists(st.sampled_from((*FAMILIES, *NAMES, "size=4", "number=1", *":=,.")), max_size=6).map("".join),
    VALUES.map(lambda value: f"gymnax:id=Acrobot-v1,vary=link_mass_1@{value}@2"),
).map(lambda spec: ["train", "--algorithm", "scratch", "--tasks", spec])


@pytest.mark.parametrize(
    ("strategy", "examples", "most_accepted"),
    [(command_lines(), 1000, 0.2), (SETTINGS, 400, 0.2), (SPECIFICATIONS, 400, 0.4)],
    ids=["command_lines", "settings", "specifications"],
)
def test_malformed_command_lines_are_refused(around, strategy, examples, most_accepted):
    before = snapshot(around)

    def trial(argv):
        refused = is_refusal(ask(argv), argv)
        assert snapshot(around) == before, argv
        return refused

    assert fuzz(strategy, trial, examples) >= 1 - most_accepted


SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=5),
    st.sampled_from((2**31, -(2**31), 2**63, 10**40, 10**400, 1e300, "x" * 10_000, "\ud800", "a\nb", "[/]", "\0")),
)
JSON = st.recursive(
    SCALARS,
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=3), inner, max_size=3)),
    max_leaves=5,
)
CORRUPTIONS = (
    lambda content: b"",
    lambda content: content[: len(content) // 2],
    lambda content: content.replace(b'"', b"\xff", 1),
    lambda content: b"\xef\xbb\xbf" + content,
    lambda content: content.decode().encode("utf-16"),
    lambda content: content * 2,
    lambda content: b"[" * 20_000,
    lambda content: b'{"a":' * 20_000,
    lambda content: b"[" * 900 + b"]" * 900,
    lambda content: content.replace(b"4", b"9" * 5000),
    lambda content: content.replace(b"0", b"NaN", 1),
    lambda content: content.replace(b"4", b"-Infinity", 1),
    lambda content: content.replace(b": ", b" "),
    lambda content: b"null\n",
    lambda content: bytes(range(256)),
)


def containers(node):
    """All that holds something in a tree of JSON, the outermost first."""
    if isinstance(node, dict | list) and node:
        yield node
        for inner in node.values() if isinstance(node, dict) else node:
            yield from containers(inner)


@st.composite
def corrupted(draw, content: bytes):
    """JSON with one to three of its fields deleted, nested or replaced, however deep; or no JSON any more."""
    if draw(st.integers(0, 4)) == 0:
        return draw(st.sampled_from(CORRUPTIONS))(content)
    changed = json.loads(content)
    for _ in range(draw(st.integers(1, 3))):
        place = draw(st.sampled_from(list(containers(changed))))
        key = draw(st.sampled_from(sorted(place) if isinstance(place, dict) else range(len(place))))
        how = draw(st.sampled_from(("delete", "nest", "replace", "replace")))
        if how == "delete":
            del place[key]
        else:
            place[key] = [place[key]] if how == "nest" else draw(JSON)
    return json.dumps(changed).encode()


def corrupted_lines(content: bytes):
    """Lines of JSON of which one is corrupted."""
    first, second = content.splitlines()
    return corrupted(first).map(lambda line: line + b"\n" + second + b"\n")


@pytest.mark.parametrize(
    ("name", "argvs", "examples", "least_refused"),
    [
        ("config.json", OPENING, 150, 400),
        *tiers.slow(
            ("evaluation.json", OPENING[3:], 200, 80),
            ("metrics.jsonl", [OPENING[0], OPENING[2]], 100, 120),
        ),
    ],
)
def test_malformed_files_of_a_run_are_refused(around, sound, name, argvs, examples, least_refused):
    make = corrupted_lines if name == "metrics.jsonl" else corrupted

    def trial(content):
        (around / "run" / name).write_bytes(content)
        before, refused = snapshot(around), 0
        for argv in argvs:
            refused += is_refusal(ask(argv), (argv, content[:500]))
            assert snapshot(around) == before, (argv, content)
        return refused

    assert fuzz(make(sound[name]), trial, examples) >= least_refused / examples


PROCESSES = {
    "unknown_command": (["trian"], {}),
    "after_two_dashes": (["train", "--", "--seed"], {}),
    "long_path": (["train", "--run-dir", LONG], {}),
    "not_utf8_path": (["inspect", "\udcff"], {}),
    "not_utf8_algorithm": (["train", "\udcff"], {}),
    "relative_module": (["train", "--tasks", ".a:b"], {}),
    "not_a_function": (["train", "--tasks", "builtins:dict"], {}),
    "huge_option": (["train", "--tasks", "bandit:arms=" + "9" * 30], {}),
    "option_twice": (["train", "--tasks", "probe:number=1,number=2"], {}),
    "huge_setting": (["train", "--set", "num_envs=" + "9" * 30], {}),
    "large_setting": (["train", "--set", "inner.learning_rate=1e300"], {}),
    "long_json": (["evaluate", "run", "--json", LONG], {}),
    "device": (["inspect", "run", "--json", "device"], {}),
    "nan_in_config": (["inspect", "run"], {"config.json": b'{"seed": NaN}'}),
    "config_of_another_kind": (["evaluate", "run"], {"config.json": b"[]"}),
    "config_not_utf8": (["compare", "run"], {"config.json": b"\xff"}),
    "deep_config": (["train", "--resume", "--run-dir", "run"], {"config.json": b"[" * 20_000}),
    "metrics": (["train", "--resume", "--run-dir", "run"], {"metrics.jsonl": b'{"meta_step": "two"}\n'}),
    "evaluation": (["compare", "run"], {"evaluation.json": b'{"returns": []}'}),
}


@pytest.mark.slow
@pytest.mark.parametrize("case", PROCESSES)
def test_a_process_of_its_own_refuses_too(around, tmp_path_factory, case):
    argv, files = PROCESSES[case]
    for name, content in files.items():
        (around / "run" / name).write_bytes(content)
    os.mkfifo(around / "device")
    before = snapshot(around)
    result = subprocess.run(
        [sys.executable, "-m", "jaxmeta.cli", *argv],
        env=subprocess_environment(tmp_path_factory.mktemp("elsewhere")),
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert is_refusal(Answer(result.returncode, result.stdout, result.stderr), argv)
    assert snapshot(around) == before

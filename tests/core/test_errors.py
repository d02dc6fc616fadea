"""The form of a refusal: the argument, the rule, the value, in one sentence."""

import ast
import pickle
from pathlib import Path

import pytest

import jaxmeta
import jaxmeta_envs
from jaxmeta.core.errors import UsageError, Words, require

FOLDERS = [Path(package.__file__).parent for package in (jaxmeta, jaxmeta_envs)]


def test_a_refusal_holds_what_its_sentence_says():
    with pytest.raises(UsageError) as caught:
        require(False, "num_adaptations", "be at least 1", 0)
    error = caught.value
    assert (error.name, error.rule, error.value) == ("num_adaptations", "be at least 1", 0)
    assert str(error) == "num_adaptations must be at least 1, got 0."


@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        ({}, "--json must be a file, got 'x'."),
        ({"reason": "No such file"}, "--json must be a file, got 'x' (No such file)."),
        ({"hint": "Did you mean 'y'?"}, "--json must be a file, got 'x'. Did you mean 'y'?"),
    ],
)
def test_a_refusal_outlives_a_process(more, sentence):
    error = UsageError("--json", "be a file", "x", **more)
    again = pickle.loads(pickle.dumps(error))
    assert (str(error), str(again), again.name) == (sentence, sentence, "--json")


def test_words_are_said_and_not_shown():
    assert str(UsageError("a", "be given without b", Words("both"))) == "a must be given without b, got both."


def calls():
    for path in (path for folder in FOLDERS for path in folder.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if (
                isinstance(node, ast.Call)
                and isinstance(node.func, ast.Name)
                and node.func.id in ("UsageError", "require")
            ):
                yield f"{path.name}:{node.lineno}", node


def test_every_refusal_has_the_form():
    """A name, a rule that goes on after `must`, and a value."""
    wrong = []
    for place, call in calls():
        first = 0 if call.func.id == "UsageError" else 1
        if len(call.args) < first + 3 and not any(isinstance(given, ast.Starred) for given in call.args):
            wrong.append(place)
        rule = call.args[first + 1]
        text = rule.value if isinstance(rule, ast.Constant) else ast.unparse(rule)
        if isinstance(rule, ast.Constant) and (text.startswith("must") or text.endswith(".") or not text[0].islower()):
            wrong.append(place)
    assert not wrong

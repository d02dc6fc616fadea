"""What is offered in place of a name that there is not: the field's own words are understood."""

import pytest

from jaxmeta.algorithms import reads, recipes
from jaxmeta.algorithms.settings import FIELD_GROUP
from jaxmeta.cli import options as cli
from jaxmeta.cli.main import USAGE_STATUS, _flags, main
from jaxmeta.core import errors, synonyms
from jaxmeta.core.errors import UsageError, require_known

FLAGS = {flag for verb in cli.VERBS.values() for flag in _flags(verb)}


def refusal(name, value, known, **more):
    with pytest.raises(UsageError) as refused:
        require_known(name, value, known, **more)
    return str(refused.value)


def test_synonyms_stand_for_what_there_is_and_for_nothing_that_is_a_name_itself():
    assert set(synonyms.SETTINGS) <= set(FIELD_GROUP)
    assert set(synonyms.OPTIONS) <= FLAGS
    words = [words.split() for words in synonyms.SETTINGS.values()]
    assert not {word for group in words for word in group} & set(FIELD_GROUP)
    assert all(len(set(group)) == len(group) for group in words)


@pytest.mark.parametrize(
    ("word", "meant"),
    [
        ("lr", ["learning_rate", "outer_learning_rate"]),
        ("alpha", ["learning_rate", "outer_learning_rate"]),
        ("outer_lr", ["outer_learning_rate"]),
        ("gamma", ["discount"]),
        ("lambda", ["gae_lambda"]),
        ("eps", ["epsilon"]),
        ("num_tasks", ["tasks_per_batch"]),
        ("meta_batch_size", ["tasks_per_batch"]),
        ("num_envs", ["envs"]),
        ("num_steps", ["n_step", "steps"]),
        ("num_epochs", ["epochs"]),
        ("entropy_coef", ["entropy", "inner_entropy"]),
        ("hidden_size", ["hidden", "memory_width"]),
        ("max_grad_norm", ["max_gradient_norm", "max_inner_norm"]),
        ("num_iterations", ["meta_steps"]),
        ("outer_learning_rat", ["outer_learning_rate"]),
    ],
)
def test_settings_are_found_by_the_words_of_the_field(capsys, word, meant):
    assert main(["train", "--set", f"{word}=1", "--no-compilation-cache"]) == USAGE_STATUS
    err = capsys.readouterr().err
    assert err.endswith(f"got {word!r}. Did you mean {' or '.join(map(repr, meant))}?\n")
    assert err.count("\n") == 1
    assert len(err) < 300


@pytest.mark.parametrize(
    ("argv", "meant"),
    [
        ("train --config x.json", ["--set"]),
        ("train --lr 0.1", ["--set learning_rate=...", "--set outer_learning_rate=..."]),
        ("train --env-id maze", ["--tasks"]),
        ("train --algo=rl2", ["--recipe"]),
        ("train --steps 5", ["--meta-steps", "--set steps=..."]),
        ("train --epochs 5", ["--meta-steps", "--set epochs=..."]),
        ("train --inner-steps 5", ["--set inner_steps=..."]),
        ("train --outer-learning-rat 5", ["--set outer_learning_rate=..."]),
        ("train --output-dir x", ["--run-dir"]),
        ("train --sead 5", ["--seed"]),
        ("inspect --plan --gamma 0.9", ["--set discount=..."]),
        ("evaluate run --episodes 5", ["--num-tasks"]),
        ("report run --html x", ["--out"]),
    ],
)
def test_options_are_found_by_the_words_of_the_field(capsys, argv, meant):
    argv = argv.split()
    out = ["--out", "page.html"] if argv[0] == "report" else []
    assert main([*argv, *out]) == USAGE_STATUS
    err = capsys.readouterr().err
    assert err.startswith(f"An option of jaxmeta {argv[0]} must be one of ")
    assert err.endswith(f"Did you mean {' or '.join(map(repr, meant))}?\n")


@pytest.mark.parametrize(("word", "flag"), [("seed", "--seed"), ("run_dir", "--run-dir"), ("tasks", "--tasks")])
def test_an_option_among_the_settings_is_named(capsys, word, flag):
    assert main(["train", "--set", f"{word}=1", "--no-compilation-cache"]) == USAGE_STATUS
    assert capsys.readouterr().err == f"--set must name a setting, got {word!r}. Did you mean {flag!r}?\n"


def test_a_refusal_lists_few_names_whole_and_of_many_the_nearest():
    few = [f"name_{index}" for index in range(errors.FEW)]
    assert refusal("it", "x", few) == f"it must be one of {', '.join(few)}, got 'x'."
    many = [*few, "another", "gadget"]
    told = refusal("it", "name_7_", many, see="`show`")
    assert told.startswith("it must be one of name_7, ")
    assert told.endswith(" and 5 more (`show` shows all), got 'name_7_'. Did you mean 'name_7'?")
    assert told.count(",") == errors.NEAREST
    assert refusal("it", "", many).endswith(" and 5 more, got ''.")
    assert " and 5 more (`jaxmeta list` shows all), got " in refusal("recipe", "x", many)


def test_settings_are_shown_where_a_refusal_says(capsys):
    assert errors.SHOWN_BY["--set"] == "`jaxmeta list RECIPE`"
    shown = set()
    for recipe in recipes.RECIPES:
        assert main(["list", recipe]) == 0
        shown |= {line.split()[0] for line in capsys.readouterr().out.splitlines()[2:] if not line.startswith(" ")}
    assert set(FIELD_GROUP) - shown <= reads.FOR_A_POLICY, "whose agent no recipe has by itself"

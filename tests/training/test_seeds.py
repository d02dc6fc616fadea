"""Populations: each member is the run that its seed would be alone, and all of them are one run."""

import json

import jax
import numpy as np
import pytest

import jaxmeta
from jaxmeta.training import checkpoints, chunks, jobs
from jaxmeta.training import seeds as populations
from jaxmeta.training.run_directory import RunDirectory
from jaxmeta.training.seeds import Member
from tests import learners, tiers
from tests.conftest import TINY
from tests.double import make_everything_in_float64
from tests.learners import DIVERGED_AT, begun, follower, quadratic
from tests.records import interrupt_at, told

SEEDS = (0, 3, 5)
RATES = {"learning_rate": [0.1, 0.3]}
SMALL = {
    "maml": ("grid_navi:size=3,horizon=4", TINY),
    "rl2": ("bandit:arms=2,pulls=4", {"memory_width": 8, "tasks_per_batch": 8, "epochs": 2, "minibatches": 2}),
    "quadratic": ("probe", {}),
}
"""By recipe, tasks and settings."""


@pytest.fixture
def networks_in_float64(float64, monkeypatch):
    """Networks and hyper-parameters too."""
    make_everything_in_float64(monkeypatch)


@pytest.fixture(autouse=True)
def _recipes(monkeypatch):
    learners.register(monkeypatch, quadratic, follower)


def train(**options):
    return jaxmeta.train(**{"recipe": "quadratic", "tasks": "probe", "seeds": SEEDS, **options})[1]


def differences(state, other):
    """How far apart two states are, leaf by leaf."""
    leaves, others = jax.tree.leaves(state), jax.tree.leaves(other)
    assert jax.tree.structure(state) == jax.tree.structure(other)
    return [
        np.max(np.abs(np.asarray(one, float) - np.asarray(its, float)), initial=0.0)
        for one, its in zip(leaves, others, strict=True)
    ]


def of_seed(config, seed):
    return populations.config_of(config, Member(seed, {}))


@pytest.mark.parametrize("recipe", ["maml", "quadratic", *tiers.slow("rl2")])
def test_members_begin_as_their_seeds_do_alone(recipe):
    tasks, settings = SMALL[recipe]
    job = jobs.prepare(recipe, tasks, settings=settings, seeds=SEEDS)
    together = map(checkpoints.state_digest, populations.members(begun(job, job.config)[0]))
    alone = [checkpoints.state_digest(begun(job, of_seed(job.config, seed))[0]) for seed in SEEDS]
    assert list(together) == alone
    assert len(set(alone)) == len(SEEDS)


@pytest.mark.usefixtures("networks_in_float64")
@pytest.mark.parametrize("recipe", ["quadratic", *tiers.slow("maml", "rl2")])
def test_each_member_equals_its_seed_alone(recipe):
    tasks, settings = SMALL[recipe]
    seeds, steps = SEEDS[:2], 3
    job = jobs.prepare(recipe, tasks, settings=settings, seeds=seeds)
    chunk = chunks.make_chunk(job.learner, job.tasks, steps)
    together, logs = chunk(*begun(job, job.config), np.int32(steps))
    for index, (seed, member) in enumerate(zip(seeds, populations.members(together), strict=True)):
        alone, log = chunk(*begun(job, of_seed(job.config, seed)), np.int32(steps))
        assert max(differences(member, alone)) < 1e-9
        assert max(differences(logs.of_member(index), log)) < 1e-9
        assert member.steps_taken == steps
    assert max(differences(*populations.members(together))) > 1e-3


def test_a_run_of_several_equals_the_runs_of_each():
    """From `train` to `train`, for a learner whose meta-step rounds alike however it is compiled."""
    together = jaxmeta.members(train(meta_steps=7, log_every=3))
    alone = [train(seeds=None, seed=seed, meta_steps=7, log_every=3) for seed in SEEDS]
    for one, other in zip(together, alone, strict=True):
        assert max(differences(one, other)) < 1e-6
    assert [checkpoints.state_digest(one) for one in jaxmeta.members(alone[0])] == [checkpoints.state_digest(alone[0])]


def test_it_is_one_program_traced_and_compiled_once(monkeypatch):
    assert learners.traced_and_compiled(monkeypatch, train) == (1, 2), "the chunk; the initial state, and the chunk"


def test_the_state_is_donated():
    job = jobs.prepare("quadratic", "probe", seeds=SEEDS)
    state, step_key = begun(job, job.config)
    chunks.make_chunk(job.learner, job.tasks, 2)(state, step_key, np.int32(2))
    assert all(leaf.is_deleted() for leaf in jax.tree.leaves(state))


def test_interrupted_and_resumed_equals_uninterrupted(tmp_path):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    options = {"recipe": "follower", "seeds": SEEDS, "sweep": RATES, "meta_steps": 10, "log_every": 4}
    expected = train(run_dir=whole, **options)
    with pytest.raises(KeyboardInterrupt, match="Interrupted at meta-step 4 of 10, and saved"):
        train(run_dir=parts, on_log=interrupt_at(4), **options)
    resumed = jaxmeta.train(run_dir=parts, resume=True)[1]
    assert checkpoints.state_digest(resumed) == checkpoints.state_digest(expected)
    assert told(parts) == told(whole)
    assert RunDirectory(whole).load_config() == RunDirectory(parts).load_config()
    restored = jaxmeta.restore(parts)[1]
    assert checkpoints.state_digest(restored) == checkpoints.state_digest(expected)
    assert len(jaxmeta.members(restored)) == 6


def test_config_says_who_the_members_are(tmp_path):
    train(recipe="follower", seeds=(3, 1), sweep=RATES, run_dir=tmp_path / "both", meta_steps=1)
    train(recipe="follower", seeds=None, seed=4, sweep=RATES, run_dir=tmp_path / "swept", meta_steps=1)
    both, swept = (RunDirectory(tmp_path / name).load_config() for name in ("both", "swept"))
    assert (both["seed"], both["seeds"], both["sweep"]) == (3, [3, 1], RATES)
    assert (swept["seed"], swept["seeds"], swept["sweep"]) == (4, [4], RATES)
    assert [(member.seed, member.hypers["learning_rate"]) for member in populations.members_of(both)] == [
        *((3, 0.1), (1, 0.1)),
        *((3, 0.3), (1, 0.3)),
    ]
    train(seeds=None, run_dir=tmp_path / "single", meta_steps=1)
    assert not {"seeds", "sweep"} & set(RunDirectory(tmp_path / "single").load_config())


def test_metrics_are_means_beside_what_each_member_has():
    records, alone = [], {seed: [] for seed in SEEDS}
    train(meta_steps=4, log_every=2, on_log=records.append)
    for seed, its in alone.items():
        train(seeds=None, seed=seed, meta_steps=4, log_every=2, on_log=its.append)
    for index, record in enumerate(records):
        for name in ("loss", "return"):
            each = [its[index][name] for its in alone.values()]
            np.testing.assert_allclose(record[f"{name}_by_member"], each, rtol=1e-5)
            assert record[name] == pytest.approx(np.mean(each), rel=1e-5)
        assert record["env_steps"] == alone[0][index]["env_steps"], "of each member"


def test_tensorboard_gets_the_means_alone(tmp_path, monkeypatch):
    from tensorboardX import summary

    told, scalar = [], summary.scalar
    monkeypatch.setattr(summary, "scalar", lambda name, value: told.append(name) or scalar(name, value))
    train(run_dir=tmp_path, meta_steps=2)
    assert "loss" in told
    assert not [name for name in told if name.endswith("_by_member")]
    assert len(RunDirectory(tmp_path).read_metrics()[0]["loss_by_member"]) == len(SEEDS)


def test_what_is_not_finite_is_named_with_its_member():
    with pytest.raises(jaxmeta.NonFiniteError, match=r"^return became nan at meta-step 8 of the member with seed 0\.$"):
        train(meta_steps=20, log_every=3, learning_rate=DIVERGED_AT)
    finite = np.array([[True, True], [True, False]])
    log = chunks.Log({"loss": np.zeros((2, 2), np.float32)}, finite, None)
    members = [Member(4, {"learning_rate": 0.1}), Member(4, {"learning_rate": 0.5})]
    named = r"not finite|finite at meta-step 7 of the member with seed 4, learning_rate 0\.5\.$"
    with pytest.raises(jaxmeta.NonFiniteError, match=named):
        chunks.summary(log, step=5, length=2, members=members)


def test_each_member_skips_its_own_meta_steps():
    values = np.array([[1.0, 2.0], [3.0, np.nan]], np.float32)
    log = chunks.Log({"loss": values}, np.isfinite(values), None)
    told = chunks.summary(log, step=0, length=2, skip=True, members=[Member(0, {}), Member(1, {})])
    assert told == {"loss": 2.0, "skipped": 1, "loss_by_member": [2.0, 2.0]}
    state = train(meta_steps=9, log_every=3, learning_rate=DIVERGED_AT, on_nonfinite="skip")
    assert np.all(np.isfinite(state.meta))
    assert state.step.tolist() == [9] * len(SEEDS)


def test_what_is_swept_is_the_run_with_that_setting():
    together = jaxmeta.members(train(recipe="follower", seeds=SEEDS[:2], sweep=RATES, meta_steps=5))
    for member, (rate, seed) in zip(together, [(r, s) for r in (0.1, 0.3) for s in SEEDS[:2]], strict=True):
        alone = train(recipe="follower", seeds=None, seed=seed, learning_rate=rate, meta_steps=5)
        assert max(differences(member, alone)) < 1e-6


@pytest.mark.slow
@pytest.mark.usefixtures("networks_in_float64")
def test_what_is_swept_in_maml_is_the_run_with_that_setting():
    tasks, settings = SMALL["maml"]
    job = jobs.prepare("maml", tasks, settings=settings, seed=1, sweep=RATES)
    chunk = chunks.make_chunk(job.learner, job.tasks, 2)
    together, _ = chunk(*begun(job, job.config), np.int32(2))
    one = populations.members(together)[1]
    alone = jobs.prepare("maml", tasks, settings={**settings, "learning_rate": 0.3}, seed=1)
    state, _ = chunks.make_chunk(alone.learner, alone.tasks, 2)(*begun(alone, alone.config), np.int32(2))
    assert max(differences(one, state)) < 1e-9


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"seeds": (1,)}, "seeds must hold at least 2 seeds, got [1]."),
        ({"seeds": (1, 2, 1)}, "seeds must repeat nothing, got [1, 2, 1]."),
        ({"seeds": (1, -2)}, "seeds must be from 0 to 2147483647, got -2."),
        ({"seeds": (1, "2")}, "seeds must be an integer, got '2'."),
        ({"seeds": "12"}, "seeds must be a sequence of integers, got '12'."),
        ({"seed": 3}, "seed must be left out where seeds are given, got 3."),
        ({"seeds": range(2000)}, "seeds must make at most 1024 members with what is swept, got 2000."),
        ({"sweep": {}}, "sweep must name at least one hyper-parameter, got {}."),
        ({"sweep": {"rounds": [1, 2]}}, "sweep must name a traced hyper-parameter (learning_rate, discount, epsilon, "),
        ({"sweep": {"learning_rate": []}}, "sweep learning_rate must hold at least one value, got []."),
        ({"sweep": {"learning_rate": [0.1, 0.1]}}, "sweep learning_rate must repeat nothing, got [0.1, 0.1]."),
        ({"sweep": {"discount": [0.9, 1.1]}}, "discount must be at most 1, got 1.1."),
        ({"sweep": RATES}, "sweep must name what the meta-parameters of quadratic hold, and they hold no hyper-para"),
        ({"resume": True}, "run_dir must be the folder of a run, with a config.json, got "),
    ],
)
def test_mistakes_are_told_before_anything_is_written(tmp_path, monkeypatch, options, sentence):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(jaxmeta.UsageError) as raised:
        train(**{"run_dir": "run", **options})
    assert str(raised.value).startswith(sentence)
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("recipe", "name", "value"),
    [("maml", "target_step_size", 0.5), ("meta_sgd", "learning_rate", 0.3)],
)
def test_a_value_that_sets_more_than_a_traced_number_is_refused(recipe, name, value):
    tasks, settings = SMALL["maml"]
    sentence = (
        f"sweep {name} must set nothing but a traced hyper-parameter, and in {recipe} more than that depends on it"
    )
    with pytest.raises(jaxmeta.UsageError, match=sentence):
        jobs.prepare(recipe, tasks, settings=settings, sweep={name: [value]})


@pytest.mark.parametrize(
    ("first", "second", "sentence"),
    [
        ({}, {"seeds": (0, 3)}, "seeds must be [0, 3, 5], as in the run that is resumed, got [0, 3]."),
        ({}, {"seed": 3}, "seed must be 0, as in the run that is resumed, got 3."),
        ({}, {"sweep": RATES}, "sweep must be None, as in the run that is resumed, got {'learning_rate': [0.1, 0.3]}."),
        ({"seeds": None}, {"seeds": (0, 1)}, "seeds must be None, as in the run that is resumed, got [0, 1]."),
    ],
)
def test_another_population_is_refused(tmp_path, first, second, sentence):
    train(run_dir=tmp_path, meta_steps=2, **first)
    with pytest.raises(jaxmeta.UsageError) as raised:
        jaxmeta.train(run_dir=tmp_path, resume=True, **second)
    assert str(raised.value) == sentence
    assert jaxmeta.train(run_dir=tmp_path, resume=True)[1].steps_taken == 2


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        ({"seeds": [0, 0]}, "seeds must repeat nothing, got [0, 0]."),
        ({"seeds": [1, 0]}, "seed must be the first of seeds, 1, got 0."),
        ({"seeds": []}, "seeds must be a list of integers, got []."),
        ({"seeds": "0"}, "seeds must be a list of integers, got '0'."),
        ({"sweep": {"rounds": [1]}}, "sweep must name a traced hyper-parameter"),
        ({"sweep": {"epsilon": 1}}, "sweep 'epsilon' must be a list of numbers, got 1."),
    ],
)
def test_a_population_in_a_file_is_checked(tmp_path, changed, sentence):
    train(run_dir=tmp_path, meta_steps=1)
    config = tmp_path / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | changed))
    for open_run in (jaxmeta.restore, lambda path: jaxmeta.train(run_dir=path, resume=True)):
        with pytest.raises(jaxmeta.UsageError) as raised:
            open_run(tmp_path)
        assert sentence in str(raised.value)


@pytest.mark.parametrize("text", ["", "x", "1,", "0-", "-1", "3-1", "0-99999999", "1 2", "٣", "0-3-5"])
def test_seeds_that_are_none_are_refused(text):
    with pytest.raises(jaxmeta.UsageError, match=r"^--seeds must "):
        populations.parse_seeds(text)


@pytest.mark.parametrize("seeds", [(0, 1, 2), (4,), (0, 3, 5), (2, 1), (1, 3, 2)])
def test_seeds_are_spelled_as_they_are_read(seeds):
    assert populations.parse_seeds(populations.spell_seeds(seeds)) == seeds


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_members_trained_by_policy_optimisation_do_not_stall():
    """Under default flags of XLA: elsewhere PPO, vmapped over seeds on a CPU, has stopped for good."""
    tasks, settings = SMALL["rl2"]
    state = train(recipe="rl2", tasks=tasks, seeds=range(4), meta_steps=200, log_every=50, **settings)
    assert state.step.tolist() == [200] * 4

"""Populations: each member is the run that its seed would be alone, and all of them are one run."""

import dataclasses
import inspect
import json

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from matplotlib.axes import Axes

import jaxmeta
from jaxmeta import checkpoints, chunks, evaluation, inspection, jobs, plots, populations, recipes, runs, statistics
from jaxmeta.cli import USAGE_STATUS, main
from jaxmeta.populations import Member
from jaxmeta.runs import RunDirectory
from tests.conftest import TINY
from tests.test_training import DIVERGED_AT, interrupt_at, quadratic, without_timing

SEEDS = (0, 3, 5)
RATES = {"learning_rate": [0.1, 0.3]}
SMALL = {
    "maml": ("grid_navi:size=3,horizon=4", TINY),
    "rl2": ("bandit:arms=2,pulls=4", {"memory_width": 8, "tasks_per_batch": 8, "epochs": 2, "minibatches": 2}),
    "quadratic": ("probe", {}),
}
"""By recipe, tasks and settings."""


def follower(parts):
    """The same with its step size among the hyper-parameters that its meta holds."""
    learner = quadratic(parts)

    def init(key):
        state = learner.init(key)
        return state.replace(meta={"start": state.meta, "hypers": parts.hypers})

    def update(key, state, env_params):
        hypers = state.meta["hypers"]
        centre = jax.random.normal(key, (3,))
        start = state.meta["start"] - hypers.learning_rate * (state.meta["start"] - centre)
        metrics = {"loss": jnp.sum((start - centre) ** 2), "return": jnp.mean(start)}
        return state.replace(meta={"start": start, "hypers": hypers}, step=state.step + 1), metrics

    return learner._replace(init=init, update=update)


@pytest.fixture
def networks_in_float64(float64, monkeypatch):
    """Flax's own layers take float32 for granted, whatever JAX is set to."""
    for layer in vars(nn).values():
        if isinstance(layer, type) and issubclass(layer, nn.Module) and dataclasses.is_dataclass(layer):
            made = inspect.unwrap(layer.__init__)
            defaults = [jnp.float64 if one is jnp.float32 else one for one in made.__defaults__ or ()]
            monkeypatch.setattr(made, "__defaults__", tuple(defaults))


@pytest.fixture(autouse=True)
def _recipes(monkeypatch):
    for build in (quadratic, follower):
        monkeypatch.setitem(recipes.RECIPES, build.__name__, recipes.Recipe("A test.", build, {}))


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


def begun(job, config):
    """The initial state of a job under a configuration, and the key of its meta-steps."""
    init_key, step_key = populations.root_keys(populations.seeds_of(config))
    return jax.jit(populations.beginning(job.learner, config))(init_key), step_key


def of_seed(config, seed):
    return populations.config_of(config, Member(seed, {}))


@pytest.mark.parametrize("recipe", SMALL)
def test_members_begin_as_their_seeds_do_alone(recipe):
    tasks, settings = SMALL[recipe]
    job = jobs.prepare(recipe, tasks, settings=settings, seeds=SEEDS)
    together = map(checkpoints.state_digest, populations.members(begun(job, job.config)[0]))
    alone = [checkpoints.state_digest(begun(job, of_seed(job.config, seed))[0]) for seed in SEEDS]
    assert list(together) == alone
    assert len(set(alone)) == len(SEEDS)


@pytest.mark.usefixtures("networks_in_float64")
@pytest.mark.parametrize("recipe", SMALL)
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
    traced, compiled = [], []

    def counted(parts):
        learner = quadratic(parts)
        return learner._replace(update=lambda *arguments: traced.append(1) or learner.update(*arguments))

    def listen(event, seconds, **about):
        if event.endswith("backend_compile_duration"):
            compiled.append(about)

    train(meta_steps=1)  # compiles what every run calls outside its own programs
    monkeypatch.setitem(recipes.RECIPES, "quadratic", recipes.Recipe("A test.", counted, {}))
    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        train(meta_steps=11, log_every=3)  # chunks of 3, 3, 3 and 2
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)
    assert len(traced) == 1
    assert len(compiled) == 2, compiled  # the initial state, and the chunk


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
    whole_metrics, metrics = (RunDirectory(path).read_metrics() for path in (whole, parts))
    assert without_timing(metrics) == without_timing(whole_metrics)
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


@pytest.mark.parametrize(
    ("recipe", "name", "value"), [("maml", "target_step_size", 0.5), ("meta_sgd", "learning_rate", 0.3)]
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


@pytest.mark.timeout(240)
def test_members_trained_by_policy_optimisation_do_not_stall():
    """Under default flags of XLA: elsewhere PPO, vmapped over seeds on a CPU, has stopped for good."""
    tasks, settings = SMALL["rl2"]
    state = train(recipe="rl2", tasks=tasks, seeds=range(4), meta_steps=200, log_every=50, **settings)
    assert state.step.tolist() == [200] * 4


OF_MEMBER = {"returns", "returns_ci95", "trial_return", "score", "score_mean", "ci95", "task_scores", "env_steps"}
OF_MEMBER |= {"steps_to_threshold", "generalisation_gap", "seed", "hypers"}


@pytest.fixture(scope="module")
def evaluated(grid):
    """Four members that were not trained, what is told of them together, and what is told of the last one alone."""
    job = jobs.prepare("maml", grid, settings=TINY, seeds=(1, 2), sweep={"temperature": [0.5, 5.0]})
    state, _ = begun(job, job.config)

    def report(state, config):
        return evaluation.evaluate(job.learner, state, grid, config, num_tasks=6, with_baselines=False)

    last = populations.config_of(job.config, populations.members_of(job.config)[-1])
    return report(state, job.config), report(populations.members(state)[-1], last)


def test_an_evaluation_pools_members_and_tells_what_each_did(evaluated):
    whole, last = evaluated
    members = whole["members"]
    expected = [(1, 0.5), (2, 0.5), (1, 5.0), (2, 5.0)]
    assert [(report["seed"], report["hypers"]["temperature"]) for report in members] == expected
    assert all(set(report) >= OF_MEMBER for report in members)
    for name in OF_MEMBER - {"seed", "hypers", "steps_to_threshold"}:
        np.testing.assert_allclose(members[-1][name], last[name], rtol=1e-5, atol=1e-6, err_msg=name)
    scores = np.array([report["task_scores"] for report in members])
    assert whole["score"] == pytest.approx(statistics.interquartile_mean(scores))
    assert whole["ci95"] == pytest.approx(statistics.bootstrap_interval(scores))
    np.testing.assert_allclose(whole["returns"], np.mean([report["returns"] for report in members], axis=0), rtol=1e-5)
    assert "members" not in last
    assert whole["baselines"].keys() == last["baselines"].keys()
    json.dumps(whole, allow_nan=False)


def test_compare_pools_the_seeds_of_each_swept_value(evaluated, tmp_path):
    whole, last = evaluated
    run = RunDirectory(tmp_path)
    run.write_config(jobs.prepare("maml", "probe", settings=TINY).config)
    runs.write_json(run.evaluation, whole)
    rows = evaluation.compare([run.load_evaluation(), {**last, "train_seed": 7}])
    of_learner = {row["hypers"]["temperature"]: row for row in rows if row["name"] == "maml"}
    assert {value: row["seeds"] for value, row in of_learner.items()} == {0.5: 2, 5.0: 3}
    first = np.array([report["task_scores"] for report in whole["members"][:2]])
    assert of_learner[0.5]["score"] == pytest.approx(statistics.interquartile_mean(first))
    assert of_learner[0.5]["ci95"] == pytest.approx(statistics.bootstrap_interval(first))
    assert {row["seeds"] for row in evaluation.compare([whole]) if row["name"] in whole["baselines"]} == {1}


def test_baselines_are_measured_once_under_the_first_member_s_settings(grid, monkeypatch):
    asked = []

    def measured(key, tasks, settings, env_params, **options):
        asked.append(settings["temperature"])
        return {}

    monkeypatch.setattr(evaluation.baselines, "measure_baselines", measured)
    job = jobs.prepare("maml", grid, settings=TINY, seeds=(1, 2), sweep={"temperature": [2.0, 5.0]})
    evaluation.evaluate(job.learner, begun(job, job.config)[0], grid, job.config, num_tasks=2)
    assert asked == [2.0]


def test_the_command_line_trains_shows_and_inspects(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    options = ["--recipe", "follower", "--tasks", "probe", "--meta-steps", "2", "--no-compilation-cache"]
    assert main(["train", *options, "--seeds", "0-2", "--sweep", "learning_rate=0.1,0.3", "--no-evaluate"]) == 0
    run_dir = tmp_path / "runs" / "follower-dqn-probe-seeds0-2-learning_rate=0.1,0.3"
    assert (run_dir / "training.png").is_file()
    assert "with seeds 0-2, learning_rate=0.1,0.3, in " in capsys.readouterr().err
    assert main(["train", "--resume", "--run-dir", str(run_dir), "--no-evaluate", "--no-compilation-cache"]) == 0
    assert main(["inspect", str(run_dir), "--json", "told.json", "--no-compilation-cache"]) == 0
    told = json.loads((tmp_path / "told.json").read_text())
    single = inspection.plan(jobs.prepare("follower", "probe", settings={"meta_steps": 2}))
    assert (told["members"], single["members"]) == (6, 1)
    assert told["parameters"] == single["parameters"]
    assert told["memory"]["state_bytes"] == 6 * single["memory"]["state_bytes"]
    assert "6: seeds 0-2, learning_rate=0.1,0.3" in capsys.readouterr().out
    assert main(["inspect", "--plan", *options, "--seeds", "0-2"]) == 0


@pytest.mark.parametrize(
    ("argv", "sentence"),
    [
        ("--seeds 3", "seeds must hold at least 2 seeds, got [3]."),
        ("--seeds x", "--seeds must be written 0-7 or 0,3,5, got 'x'."),
        ("--seeds 0,0", "seeds must repeat nothing, got [0, 0]."),
        ("--seeds 0-1 --seed 3", "seed must be left out where seeds are given, got 3."),
        ("--sweep learning_rate", "--sweep must be written key=value,value, got 'learning_rate'."),
        ("--sweep rounds=1,2", "sweep must name a traced hyper-parameter (learning_rate, discount, "),
        ("--sweep epsilon=0.1,x", "epsilon must be a number, got 'x'."),
        ("--sweep epsilon=0.1 epsilon=0.2", "--sweep must name a setting once, got 'epsilon' twice."),
        ("--sweep discount=0.9,2", "discount must be at most 1, got 2.0."),
        ("--sweep epsilon=0.1,nan", "epsilon must be finite, got nan."),
    ],
)
def test_mistakes_on_the_command_line_are_one_sentence(tmp_path, monkeypatch, capsys, argv, sentence):
    monkeypatch.chdir(tmp_path)
    assert main(["train", "--tasks", "probe", "--no-compilation-cache", *argv.split()]) == USAGE_STATUS
    err = capsys.readouterr().err
    assert err.startswith(sentence)
    assert err.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_the_picture_shows_the_spread_of_members(tmp_path, monkeypatch):
    drawn = []
    fill = Axes.fill_between
    monkeypatch.setattr(
        Axes, "fill_between", lambda axes, *band, **look: drawn.append(band) or fill(axes, *band, **look)
    )
    point = {"meta_step": 1, "env_steps": 10, "loss": 2.0, "return": 1.0}
    plots.plot_training([point], tmp_path / "single.png")
    assert not drawn
    plots.plot_training(
        [{**point, "loss_by_member": [3.0, 1.0], "return_by_member": [0.5, 1.5]}], tmp_path / "both.png"
    )
    assert drawn == [([10], [0.5], [1.5]), ([10], [1.0], [3.0])]

"""Observations that are pictures: the convolution in both forms, where it is used, and what a picture shows."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxmeta
from jaxmeta.algorithms.registry import make_learner
from jaxmeta.core.types import batch_of_tasks
from jaxmeta.nets import pictures
from jaxmeta.nets.networks import QNetwork
from jaxmeta.nets.pictures import Convolution

ASTERIX = "gymnax:id=Asterix-MinAtar,vary=ramp_interval@50@200,horizon=8"
PICTURES = "maze:size=5,horizon=8,observation=picture"
SMALL = {"num_envs": 2, "num_adaptations": 1, "rollout_length": 4, "tasks_per_batch": 2}


def by_loops(picture, kernel):
    """The definition, [H, W, N]: the sum over a window of 3 x 3 with zeros around the picture."""
    height, width, _ = picture.shape
    padded = np.pad(picture, ((1, 1), (1, 1), (0, 0)))
    return np.array(
        [[np.einsum("yxc,yxcn->n", padded[y : y + 3, x : x + 3], kernel) for x in range(width)] for y in range(height)]
    )


def drawn(seed=0, dtype=np.float64):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(5, 4, 3)).astype(dtype), rng.normal(size=(3, 3, 3, 16)).astype(dtype)


@pytest.mark.parametrize("form", [pictures.unfolded, pictures.convolution])
def test_both_forms_are_the_definition(form):
    with jax.enable_x64(True):
        picture, kernel = drawn()
        np.testing.assert_allclose(form(picture, kernel), by_loops(picture, kernel), atol=1e-12)


def test_both_forms_have_the_same_meta_gradient():
    """Second derivatives: of the loss after a gradient step, in picture and kernel."""
    with jax.enable_x64(True):
        picture, kernel = map(jnp.asarray, drawn())

        def after_a_step(form):
            def loss(kernel, picture):
                return jnp.sum(jnp.tanh(form(picture, kernel)) ** 2)

            def outer(kernel, picture):
                return loss(kernel - 0.1 * jax.grad(loss)(kernel, picture), picture)

            return jax.grad(outer, argnums=(0, 1))(kernel, picture)

        ours, theirs = map(after_a_step, (pictures.unfolded, pictures.convolution))
        jax.tree.map(lambda one, other: np.testing.assert_allclose(one, other, rtol=1e-9, atol=1e-9), ours, theirs)


def test_a_program_takes_the_form_of_its_platform():
    picture, kernel = drawn(dtype=np.float32)
    module = Convolution()
    params = module.init(jax.random.key(0), picture)
    assert params["params"]["kernel"].shape == kernel.shape
    lowered = jax.jit(module.apply).trace(params, picture)
    assert "convolution" not in lowered.lower(lowering_platforms=("cpu",)).as_text()
    assert "convolution" in lowered.lower(lowering_platforms=("tpu",)).as_text()
    expected = np.maximum(by_loops(picture, params["params"]["kernel"]) + params["params"]["bias"], 0.0)
    np.testing.assert_allclose(module.apply(params, picture), expected.ravel(), atol=1e-5)


def test_only_pictures_are_convolved():
    flat = QNetwork(2, (4,)).init(jax.random.key(0), jnp.zeros(6))
    assert set(flat["params"]) == {"torso_0", "head"}
    network = QNetwork(2, (4,), picture=(2, 3, 1))
    params = network.init(jax.random.key(0), jnp.zeros(6))
    assert params["params"]["picture"]["kernel"].shape == (3, 3, 1, 16)
    assert params["params"]["torso_0"]["kernel"].shape == (2 * 3 * 16, 4)


def test_a_picture_of_a_maze_shows_walls_and_agent_and_not_the_goal():
    tasks = jaxmeta.make_tasks(PICTURES)
    params = tasks.sample(jax.random.key(3), "test")
    seen, state = tasks.env.reset(jax.random.key(0), params)
    assert seen.shape == tasks.env.observation_space(params).shape == (5, 5, 2)
    np.testing.assert_array_equal(seen[..., 0], params.walls)
    np.testing.assert_array_equal(np.argwhere(seen[..., 1])[0], params.start[::-1])
    elsewhere = tasks.env.get_obs(state, params.replace(goal=4 - params.goal))
    np.testing.assert_array_equal(seen, elsewhere)
    for action in range(4):
        after, moved, *_ = tasks.env.step(jax.random.key(0), state, action, params)
        np.testing.assert_array_equal(np.argwhere(after[..., 1])[0], moved.position[::-1])
    plain = jaxmeta.make_tasks("maze:size=5,horizon=8")
    np.testing.assert_array_equal(plain.env.reset(jax.random.key(0), params)[0], seen[..., 1].ravel())
    with pytest.raises(jaxmeta.UsageError, match=r"^maze:observation must be one of "):
        jaxmeta.make_tasks("maze:observation=pixels")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("algorithm", "tasks", "settings"),
    [
        ("maml", ASTERIX, {"hidden": (8,)}),
        ("maml", PICTURES, {"hidden": (8,), "agent": "actor_critic", "baseline": "value"}),
        ("learned_optimizer", PICTURES, {"hidden": (8,), "num_perturbations": 2}),
        ("rl2", PICTURES, {"minibatches": 1, "width": 8}),
        ("snail", PICTURES, {"minibatches": 1, "width": 8, "heads": 2}),
    ],
)
def test_algorithms_learn_from_pictures(algorithm, tasks, settings):
    tasks = jaxmeta.make_tasks(tasks)
    learner = make_learner(algorithm, tasks, SMALL | settings)
    state = learner.init(jax.random.key(0))
    meta = learner.meta(state)
    kernels = [leaf for path, leaf in jax.tree.leaves_with_path(meta) if jax.tree_util.keystr(path).count("kernel")]
    assert any(leaf.ndim == 4 for leaf in kernels)
    after, info = jax.jit(learner.update)(jax.random.key(1), state, batch_of_tasks(jax.random.key(2), learner, tasks))
    assert np.isfinite(info.metrics["loss"])
    changed = jax.tree.map(lambda one, other: bool((one != other).any()), meta, learner.meta(after))
    assert any(jax.tree.leaves(changed))

"""Animations of a lifetime in one unseen task: episodes before, during and after adaptation, side by side and in step.

    animation = animate(run, task=3)
    animation.save("adapt.gif")

They are drawn without a display: GIF by Pillow, HTML with the frames inside, MP4 by ffmpeg, PNG as a still.
"""

import base64
import io
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import jax
import numpy as np

from jaxmeta.core.errors import UsageError, Words, require, require_known
from jaxmeta.core.scenes import Episode, Scene
from jaxmeta.core.types import MetaLearner, PyTree, TaskDistribution
from jaxmeta.evaluation import lifetimes
from jaxmeta.training.run_directory import write_text

if TYPE_CHECKING:
    from matplotlib.figure import Figure

KINDS = ("gif", "html", "mp4", "png")
MOST_PANELS = 4
MOST_FRAMES = 80
"""Of longer episodes every other step is drawn, or every third, and so on."""
FRAMES_PER_SECOND = 8
HELD = 12
"""Frames for which the last moment stays."""
PANEL = 2.6
"""Inches, the height of a panel."""
DPI = 90

OnShare = Callable[[float], None]
"""`on_share(share)` receives the share of the frames that is drawn, from 0 to 1."""


class Animation:
    """Episodes of one lifetime, drawn frame by frame."""

    def __init__(self, title: str, scene: Scene, episodes: Sequence[tuple[str, Episode]]):
        """Takes a title, how the task is drawn, and the episodes with their captions."""
        self.title, self.scene, self.episodes = title, scene, list(episodes)
        longest = max(len(episode.steps.reward) for _, episode in self.episodes)
        stride = -(-longest // MOST_FRAMES)
        self.frames = [*range(0, longest - 1, stride), longest - 1]
        """The step that each frame shows; an episode that has ended shows its last."""

    def __repr__(self) -> str:
        """In one line: `Animation(rl2 in maze, 3 episodes, 40 frames)`."""
        return f"Animation({self.title}, {len(self.episodes)} episodes, {len(self.frames)} frames)"

    def _repr_html_(self) -> str:
        with tempfile.TemporaryDirectory() as folder:
            path = self.save(Path(folder) / "animation.gif")
            content = base64.b64encode(path.read_bytes()).decode()
        return f'<img alt="{self.title}" src="data:image/gif;base64,{content}">'

    def save(self, path: str | Path, on_share: OnShare = lambda share: None) -> Path:
        """Writes it as the ending of the path says: `.gif`, `.html`, `.mp4`, or `.png` for the last frame alone.

        Raises:
          UsageError: another ending, or an MP4 where no ffmpeg is found.
        """
        path = Path(path)
        kind = require_kind(path)
        figure, draw = self._figure()
        if kind == "png":
            draw(len(self.frames) - 1)
            figure.savefig(path, dpi=DPI)
            return path
        if kind == "html":
            write_text(path, self._page(figure, draw, on_share))
            return path
        from matplotlib import rc_context
        from matplotlib.animation import FuncAnimation, PillowWriter

        held = [*range(len(self.frames)), *[len(self.frames) - 1] * HELD]
        moving = FuncAnimation(figure, draw, frames=held, interval=1000 / FRAMES_PER_SECOND, blit=False)
        on_frame = lambda index, count: on_share(min(1.0, (index + 1) / len(held)))  # noqa: E731
        if kind == "gif":
            moving.save(path, writer=PillowWriter(fps=FRAMES_PER_SECOND), dpi=DPI, progress_callback=on_frame)
        else:
            with rc_context({"animation.ffmpeg_path": ffmpeg()}):
                moving.save(path, writer="ffmpeg", fps=FRAMES_PER_SECOND, dpi=DPI, progress_callback=on_frame)
        return path

    def _page(self, figure: "Figure", draw: Callable[[int], list], on_share: OnShare) -> str:
        """A page with all frames inside, which fetches nothing."""
        import jinja2

        frames = []
        for index in range(len(self.frames)):
            draw(index)
            buffer = io.BytesIO()
            figure.savefig(buffer, format="png", dpi=DPI)
            frames.append(base64.b64encode(buffer.getvalue()).decode())
            on_share((index + 1) / len(self.frames))
        loader = jinja2.PackageLoader("jaxmeta.reporting")
        template = jinja2.Environment(loader=loader, autoescape=True).get_template("animation.html.j2")
        milliseconds = round(1000 / FRAMES_PER_SECOND)
        return template.render(title=self.title, frames=frames, held=HELD, milliseconds=milliseconds)

    def _figure(self) -> tuple["Figure", Callable[[int], list]]:
        """The figure with what does not move, and a function that draws a frame into it."""
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure

        count = len(self.episodes)
        width = max(4.0, count * PANEL * self.scene.aspect)
        figure = Figure(figsize=(width, PANEL + 1.0), layout="constrained")
        FigureCanvasAgg(figure)
        figure.suptitle(self.title, fontsize=11, fontweight="bold")
        panels = list(figure.subplots(1, count, squeeze=False)[0])
        for axes in panels:
            axes.set_xticks([])
            axes.set_yticks([])
            for spine in axes.spines.values():
                spine.set_color("#c8c8c8")
            self.scene.background(axes)
        fixed = [set(axes.get_children()) for axes in panels]

        def draw(index: int) -> list:
            for axes, (caption, episode), stays in zip(panels, self.episodes, fixed, strict=True):
                for artist in set(axes.get_children()) - stays:
                    artist.remove()
                step = min(self.frames[index], len(episode.steps.reward) - 1)
                earned = float(np.sum(episode.steps.reward[: step + 1]))
                axes.set_title(f"{caption}\nreturn {earned:.1f}", fontsize=10)
                self.scene.moment(axes, episode, step)
            return []

        draw(0)
        figure.canvas.draw()
        figure.set_layout_engine("none")  # one layout for all frames, so that nothing moves but what is drawn
        return figure, draw


def animate(
    learner: MetaLearner, meta: PyTree, tasks: TaskDistribution, *, task: int = 0, split: str = "test", name: str = ""
) -> Animation:
    """Records a lifetime in one task and lays it out.

    Args:
      learner: what adapts.
      meta: its meta-parameters.
      tasks: the family.
      task: seed of the task and of all randomness.
      split: the split that the task is drawn from.
      name: of the learner, for the title.

    Raises:
      UsageError: an unknown split, or a family without a drawing.
    """
    require_drawn(tasks)
    require_known("split", split, tasks.splits)
    require(0 <= task < 2**31, "task", "be a seed from 0 to 2147483647", task)
    assert tasks.scene is not None
    task_key, lifetime_key = jax.random.split(jax.random.key(task))
    env_params = tasks.sample(task_key, split)
    scene = tasks.scene(jax.device_get(env_params))
    recorded = lifetimes.record(lifetime_key, learner, meta, tasks, env_params, scene)
    family = tasks.name.partition(":")[0]
    title = f"{name or learner.name} in {family}, unseen task" if not tasks.tasks_seen(split) else f"{name} in {family}"
    if scene.lifetime:
        return Animation(title, scene, [(f"lifetime of {len(recorded[0].steps.reward)} steps", recorded[0])])
    shown = chosen(len(recorded))
    unit = "episode" if recorded[-1].earlier is not None and learner.lifetime.num_envs == 1 else "adaptation"
    return Animation(title, scene, [(_caption(index, unit), recorded[index]) for index in shown])


def chosen(count: int) -> list[int]:
    """The episodes that are shown of so many: all, or the first ones and the last.

    >>> chosen(3), chosen(11)
    ([0, 1, 2], [0, 1, 5, 10])
    """
    if count <= MOST_PANELS:
        return list(range(count))
    return [0, 1, count // 2, count - 1]


def _caption(index: int, unit: str) -> str:
    if index == 0:
        return "first episode" if unit == "episode" else "before adaptation"
    if unit == "episode":
        return f"episode {index + 1}"
    return f"after {index} adaptation{'' if index == 1 else 's'}"


def require_drawn(tasks: TaskDistribution) -> None:
    """Refuses a family without a drawing."""
    require(tasks.scene is not None, "tasks", "be a family with a drawing (`TaskDistribution.scene`)", tasks.name)


def require_kind(path: Path) -> str:
    """The kind of file that a path names.

    Raises:
      UsageError: none of `KINDS`, or MP4 without ffmpeg.
    """
    kind = path.suffix[1:].lower()
    require(kind in KINDS, "--out", f"end in one of {', '.join(f'.{kind}' for kind in KINDS)}", str(path))
    if kind == "mp4":
        ffmpeg()
    return kind


def ffmpeg() -> str:
    """The system's ffmpeg, or that of `imageio-ffmpeg` where it is installed.

    Raises:
      UsageError: there is neither.
    """
    import shutil

    if found := shutil.which("ffmpeg"):
        return found
    try:
        import imageio_ffmpeg

        return imageio_ffmpeg.get_ffmpeg_exe()
    except (ImportError, RuntimeError):
        rule = "end in .gif or .html where no ffmpeg is found (`pip install imageio-ffmpeg` brings one)"
        raise UsageError("--out", rule, Words(".mp4")) from None

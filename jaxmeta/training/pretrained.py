"""The learners that ship with the library, each a folder as `learner_files` writes it."""

from pathlib import Path
from typing import Any

from jaxmeta.core.errors import require_known
from jaxmeta.training import checkpoints, learner_files

HOME = Path(__file__).parent / "artefacts"


def available(home: Path = HOME) -> dict[str, str]:
    """Their names, each with one line: of a damaged one, that it is."""
    reported = {}
    for path in _folders(home):
        try:
            reported[path.name] = learner_files.read_card(path)["summary"]
        except checkpoints.CheckpointError as error:
            reported[path.name] = str(error)
    return reported


def card(name: str, home: Path = HOME) -> dict[str, Any]:
    """The card of one.

    Raises:
      UsageError: there is none of that name.
      CheckpointError: its card is damaged.
    """
    require_known("--pretrained", name, [path.name for path in _folders(home)])
    return learner_files.read_card(home / name)


def _folders(home: Path) -> list[Path]:
    return sorted(path.parent for path in home.glob(f"*/{learner_files.CARD}"))

"""A file of results that is added to: what it holds is not made again."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from jaxmeta.runs import write_json


class Record:
    """What was tuned and measured of one subject, as a JSON file that is written after every addition.

    Args:
      path: the file; it need not exist.
      subject: what all of it is about.

    Raises:
      SystemExit: the file is about something else.
    """

    def __init__(self, path: Path, subject: dict[str, Any]):
        self.path = path
        self.content: dict[str, Any] = json.loads(path.read_text()) if path.is_file() else {}
        held = self.content.setdefault("subject", subject)
        if held != subject:
            raise SystemExit(f"--out must be a file about {subject}, got one about {held}.")

    def kept(self, group: str, name: str, make: Callable[[], Any]) -> Any:
        """What the file holds by that name; made and written if it does not."""
        held = self.content.setdefault(group, {})
        if name not in held:
            held[name] = make()
            write_json(self.path, self.content)
        return held[name]

    def close(self, command: str, **summary: Any) -> dict[str, Any]:
        """Writes the command that was run, beside those of before, and what everything comes to; returns all."""
        commands = self.content.setdefault("commands", [])
        if command not in commands:
            commands.append(command)
        self.content |= summary
        write_json(self.path, self.content)
        return self.content

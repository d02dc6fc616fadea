"""Learners on the Hugging Face hub: a repository that holds the two files of `learner_files`, named `hf://owner/name`."""

import re
from pathlib import Path

from jaxmeta.core.errors import NONE, UsageError, require
from jaxmeta.training import learner_files

PREFIX = "hf://"
RULE = f"be written {PREFIX}OWNER/NAME or {PREFIX}OWNER/NAME@REVISION"


def fetch(address: str) -> Path:
    """The folder that a repository's two files are kept in, downloaded if they are not there yet.

    Args:
      address: `hf://owner/name`, or `hf://owner/name@revision`.

    Raises:
      UsageError: it is not written so, there is no such repository, or the extra `hub` is not installed.
    """
    found = re.fullmatch(r"hf://([\w.-]+/[\w.-]+)(?:@([\w./-]+))?", address)
    require(found is not None, "A run to load", RULE, address)
    assert found is not None
    try:
        import huggingface_hub
        from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError
    except ImportError:
        rule = "be on a hub that can be reached: pip install 'jaxmeta[hub]'"
        raise UsageError("A run to load", rule, address) from None
    files = [learner_files.CARD, learner_files.ARRAYS]
    try:
        folder = huggingface_hub.snapshot_download(found[1], revision=found[2], allow_patterns=files)
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError, ValueError) as error:
        reason = str(error).splitlines()[0] if str(error) else NONE
        raise UsageError("A run to load", "be a repository that can be read", address, reason=str(reason)) from None
    require(learner_files.is_learner(Path(folder)), "A run to load", f"hold {files[0]} and {files[1]}", address)
    return Path(folder)

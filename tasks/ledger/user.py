"""Who runs this process, where the system knows no more than a number: containers are often run with a user id that has no entry in passwd."""

from __future__ import annotations

import getpass
import os
from pathlib import Path


def user_name() -> str:
    """The name of the user, or ``uid12345`` where the number has none."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return f"uid{os.getuid()}"


def give_home(root: Path) -> None:
    """Let libraries find a home folder, below the project, for a user who has none by ``HOME`` or by passwd. It is made by whoever writes into it first."""
    try:
        Path.home()
    except RuntimeError:
        os.environ["HOME"] = str(root / ".recompress" / "home")

"""A worker of this machine: a process that takes jobs as lines of JSON on stdin and tells on stdout how each ended.

    python -m tasks.workers.process ROOT

What libraries print goes to stderr. The process ends when stdin does, and Linux ends it when the run that started it is killed.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from recompress.errors import RecompressError, kind_of
from tasks.workers.job import Job, StandsElsewhere


def main(root: Path) -> None:
    """Do jobs until there are no more."""
    tell = _channel()
    if logging.lastResort is not None:
        logging.lastResort.setLevel(logging.CRITICAL)  # as the command does: what libraries log is not for people
    from tasks.workers.at_work import Workshop
    from tasks.workers.standing import standing_of

    workshop = Workshop(root, {}, lambda line: tell({"say": line}))
    for line in sys.stdin:
        begun = time.monotonic()
        try:
            workshop.standing = standing_of(root)  # read for each job, as the run does: somebody may have committed since the last one
            did = workshop.do(Job.model_validate_json(line))
            tell({"did": did, "seconds": time.monotonic() - begun})
        except StandsElsewhere as error:
            tell({"elsewhere": str(error)})
        except RecompressError as error:
            tell({"error": str(error), "kind": kind_of(error)})
        except Exception as error:
            traceback.print_exc()
            tell({"error": f"{type(error).__name__}: {error}", "kind": type(error).__name__})


def _channel() -> Callable[[dict[str, Any]], None]:
    """Keep stdout for what is told, and let everything else that is printed go to stderr."""
    channel = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())

    def tell(message: dict[str, Any]) -> None:
        channel.write(f"{json.dumps(message)}\n")
        channel.flush()

    return tell


if __name__ == "__main__":
    main(Path(sys.argv[1]))

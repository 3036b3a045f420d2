"""Processes that tests fork off: each ends when its work ends, and leaves alone what else the tests have started (Prefect's services, once a flow has run)."""

from __future__ import annotations

import os
import sys
import traceback
from multiprocessing.context import ForkProcess


class Child(ForkProcess):
    """A forked process whose exit code says whether its work was done: 0, or 1 with a traceback on stderr."""

    def run(self) -> None:
        code = 1
        try:
            super().run()
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)

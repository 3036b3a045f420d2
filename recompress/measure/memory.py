"""How much memory a model takes: the largest resident size of a fresh process that loads it and answers one batch.

    python -m recompress.measure.memory request.json answer.json

The Python interpreter and the libraries of the runtime are in it, because whoever serves the model pays for them; the tokenizer is not.
"""

from __future__ import annotations

import re
import resource
import sys
from pathlib import Path

from recompress.measure.request import Request, batch_of, open_all, reply


def answer(request: Request) -> int:
    """The peak in bytes, after each model has answered one batch."""
    for runtime, features in zip(open_all(request), request.features, strict=True):
        runtime.logits(batch_of(features, 0, request.batch_size), request.batch_size)
    return peak_bytes()


def peak_bytes() -> int:
    """The largest resident size that this process has had. On Linux it is ``VmHWM``: ``ru_maxrss`` begins with that of the process which started this one."""
    try:
        match = re.search(r"VmHWM:\s*(\d+) kB", Path("/proc/self/status").read_text())
    except OSError:
        match = None
    if match:
        return 1024 * int(match[1])
    unit = 1 if sys.platform == "darwin" else 1024
    return unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


if __name__ == "__main__":
    reply(answer)

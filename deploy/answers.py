"""Whether a server answers: exit code 0, or 1 with the reason. For health checks of containers, whose image has no curl.

python deploy/answers.py http://127.0.0.1:5000/health
"""

from __future__ import annotations

import sys
from urllib.request import urlopen

if __name__ == "__main__":
    try:
        urlopen(sys.argv[1], timeout=5).close()  # noqa: S310 - the address stands in compose.yaml
    except OSError as error:
        sys.exit(str(error))

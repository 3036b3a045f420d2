"""Why a request is not answered, as HTTP says it and as MLflow's server words it."""

from __future__ import annotations

import json
from http import HTTPStatus


class Refusal(Exception):
    """A status with a line that names the value, the limit and the way out. It never holds what was asked, a path or a traceback."""

    def __init__(self, status: int, message: str, *, retry_after_s: int | None = None, close: bool = False) -> None:
        super().__init__(message)
        self.status, self.message = status, message
        self.headers = ({} if retry_after_s is None else {"Retry-After": str(retry_after_s)}) | ({"Connection": "close"} if close else {})

    @property
    def body(self) -> bytes:
        """``{"error_code": "BAD_REQUEST", "message": …}``."""
        return json.dumps({"error_code": HTTPStatus(self.status).name, "message": self.message}).encode()

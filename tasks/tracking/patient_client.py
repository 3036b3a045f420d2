"""MLflow's client, as long work needs it: what it asks of a server that is away is asked again.

MLflow itself asks a server a few times within seconds (``MLFLOW_HTTP_REQUEST_MAX_RETRIES``) and then raises, whatever a training has cost so far. Most requests may
be sent twice without harm: they name the run that they write to. A second run or version that was made so is one that nothing names.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mlflow import MlflowClient

BROKEN_DOWNLOAD = re.compile(
    r"while downloading one or more.*(?:Max retries exceeded|Connection aborted|Connection broken|Read timed out|too many 50\d)", re.DOTALL
)
"""How MLflow sums up what went wrong with the files of a folder; the errors themselves are only text by then."""
LOGIN = ("PERMISSION_DENIED", "UNAUTHENTICATED", "CUSTOMER_UNAUTHORIZED")


class PatientClient:
    """Asks each question of the client through ``ask``, which may ask it again."""

    def __init__(self, client: MlflowClient, ask: Callable[[Callable[[], Any]], Any]) -> None:
        self._client, self._ask = client, ask

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._client, name)
        return (lambda *arguments, **named: self._ask(lambda: method(*arguments, **named))) if callable(method) else method


def is_away(error: Exception) -> bool:
    """Whether a server could not be reached, went away in the middle, or answered again and again that it has an error of its own (5xx): its store may be away."""
    import requests

    away = (requests.ConnectionError, requests.Timeout, requests.exceptions.ChunkedEncodingError, requests.exceptions.RetryError)
    return any(isinstance(one, away) for one in _and_its_causes(error)) or bool(BROKEN_DOWNLOAD.search(str(error)))


def asks_for_login(error: Exception) -> bool:
    """Whether MLflow refused for want of a login, or of a right that the login lacks."""
    codes = {getattr(getattr(one, "response", None), "status_code", None) for one in _and_its_causes(error)}
    return bool(codes & {401, 403}) or getattr(error, "error_code", "") in LOGIN


def _and_its_causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__

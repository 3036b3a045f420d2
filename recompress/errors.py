"""What can go wrong, one class for each exit code of the command.

A message is one line that names the value, the limit and the way out; the command prints it as it is, without a traceback.
"""

from __future__ import annotations

import re

PASSWORD = re.compile(r"(?P<scheme>\w[\w+.-]*)://(?P<user>[^/?#\s:@'\"]*):[^\s/?#'\"]*@")
TOKEN = re.compile(r"(?P<scheme>https?)://[^/?#\s:@'\"]+@")
PARAMETER = re.compile(r"(?P<name>[?&](?:password|passwd|token|api_key|secret)=)[^&\s'\"]+", re.IGNORECASE)


def without_passwords(text: str) -> str:
    """The text with ``***`` for the password of every URL in it, for what stands there instead of a user's name over HTTP, and for parameters that are secrets."""
    text = PASSWORD.sub(r"\g<scheme>://\g<user>:***@", text)
    return PARAMETER.sub(r"\g<name>***", TOKEN.sub(r"\g<scheme>://***@", text))


class RecompressError(Exception):
    """The root of every error that a person is meant to read. No password of a URL ever stands in its message, whoever wrote the URL into it."""

    exit_code = 1

    def __init__(self, *args: object) -> None:
        super().__init__(*(without_passwords(arg) if isinstance(arg, str) else arg for arg in args))


class InputError(RecompressError):
    """A recipe, a policy or an argument is wrong. Nothing was run and nothing was written."""

    exit_code = 2


class DataRefused(RecompressError):
    """The data is missing, broken, or did not pass its checks."""

    exit_code = 3


class GateRefused(RecompressError):
    """No variant passed the policy, or the promotion was refused."""

    exit_code = 4


class IntegrityError(RecompressError):
    """Bytes do not match their digest, a signature does not match its key, or the ledger does not match itself."""

    exit_code = 5


class ApprovalPending(RecompressError):
    """A person has to decide before the work can go on."""

    exit_code = 6


class EffectMissing(RecompressError):
    """A method reported success, but what it promised cannot be measured on the model or on disk."""


class TrainingDiverged(RecompressError):
    """The loss of a training became NaN or infinite."""


class StorageError(RecompressError):
    """A store cannot be written: full, read-only, or out of reach."""


def kind_of(error: RecompressError) -> str:
    """The name by which another process is told of an error: that of its class, or of the nearest one above it that stands here."""
    names = (kind.__name__ for kind in type(error).__mro__ if globals().get(kind.__name__) is kind)
    return str(next(names))


def as_raised(kind: str, message: str) -> RecompressError | None:
    """The error that another process told of by ``kind_of``; ``None`` for what is none of ours."""
    known = globals().get(kind)
    return known(message) if isinstance(known, type) and issubclass(known, RecompressError) else None

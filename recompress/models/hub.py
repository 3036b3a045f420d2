"""A snapshot of a hub's repository at one commit: models and data sets are fetched in the same way, and never a pickle or code."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Literal

from recompress.errors import InputError, StorageError

log = logging.getLogger(__name__)


def snapshot(kind: Literal["model", "dataset"], name: str, revision: str, files: list[str], called: str, otherwise: str) -> Path:
    """The folder of the client's cache that holds ``files`` (patterns) of a repository at a commit; from there when the hub cannot be reached.

    Raises ``InputError`` that begins with ``called``: it is not on the hub, gated, has no such commit, or cannot be reached, and then with the ways out
    (``otherwise``); ``StorageError`` when the disk is full.
    """
    import httpx2 as httpx
    from huggingface_hub import HfApi, snapshot_download
    from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, LocalEntryNotFoundError, RepositoryNotFoundError, RevisionNotFoundError

    try:
        try:
            # asked first because it fails at once where there is no network; the download would try again and again
            HfApi().repo_info(name, revision=revision, timeout=20, repo_type=kind)
        except (httpx.HTTPError, OSError) as error:
            if isinstance(error, HfHubHTTPError) and error.response.status_code < 500:
                raise
            log.debug("hub: %s", error)
            return Path(snapshot_download(name, revision=revision, repo_type=kind, allow_patterns=files, local_files_only=True))
        return Path(snapshot_download(name, revision=revision, repo_type=kind, allow_patterns=files))
    except GatedRepoError:
        raise InputError(f"{called} is gated; accept its terms on the hub and set HF_TOKEN") from None
    except RevisionNotFoundError:
        raise InputError(f"{called} has no revision {revision!r}") from None
    except RepositoryNotFoundError:
        raise InputError(f"{called} is not on the hub, or is private: set HF_TOKEN") from None
    except (LocalEntryNotFoundError, httpx.HTTPError, OSError) as error:
        if isinstance(error, OSError) and error.errno == 28:
            raise StorageError(f"no space left while fetching {called}; free some, or set HF_HOME to a larger disk") from None
        log.debug("hub: %s", error)
        raise InputError(f"{called} is neither in the local cache nor can the hub be reached; connect, {otherwise}") from None


def is_cached(name: str, revision: str, file: str) -> bool:
    """Whether the client's cache holds a file of a model's repository at a commit. The hub is not asked."""
    from huggingface_hub import try_to_load_from_cache

    return isinstance(try_to_load_from_cache(name, file, revision=revision), str)

"""An exported folder goes to a hub, in one commit, by the hub's own client, and never without being told to.

What is uploaded is what was exported: every file is hashed against the folder's signed list first, and nothing else of the folder goes along.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

from recompress.errors import InputError, StorageError
from recompress.export import check_export
from recompress.integrity.model_files import EXPORT_FILE, MANIFEST_FILE, read_manifest
from tasks.ledger.keys import own_public_key

log = logging.getLogger(__name__)


def push_export(root: Path, folder: Path, repository: str, *, public: bool, say: Callable[[str], None]) -> dict[str, Any]:
    """Upload an exported folder to ``owner/name``, which is made (private, unless ``public``) where it does not exist.

    Raises ``InputError`` for a name that is none, or where the hub refuses; ``IntegrityError`` for a folder that was changed or that this project did not export;
    ``StorageError`` where the hub cannot be reached.
    """
    if repository.count("/") != 1 or not all(repository.split("/")):
        raise InputError(f"a repository is called owner/name, got {repository!r}")
    exported = check_export(folder, own_public_key(root))
    files = [entry.path for entry in read_manifest(folder, exported.manifest_sha256)] + [MANIFEST_FILE, EXPORT_FILE]
    say(f"{folder}: {len(files)} files, every one as it was exported; uploading to {repository}")
    title = f"{exported.facts.get('model', 'model')} version {exported.facts.get('version', '?')}, exported to {exported.to}"
    return {"repository": repository, "commit": _upload(folder, files, repository, title, public), "files": len(files)}


def _upload(folder: Path, files: list[str], repository: str, title: str, public: bool) -> str:
    """The commit's name."""
    import httpx2 as httpx
    from huggingface_hub import CommitOperationAdd, HfApi
    from huggingface_hub.errors import HfHubHTTPError, LocalTokenNotFoundError

    hub = HfApi()
    operations = [CommitOperationAdd(path_in_repo=name, path_or_fileobj=folder / name) for name in files]
    try:
        hub.create_repo(repository, private=not public, exist_ok=True)
        return str(hub.create_commit(repository, operations, commit_message=title).oid)
    except LocalTokenNotFoundError:
        raise InputError("the hub wants to know who uploads: set HF_TOKEN to a token that may write") from None
    except HfHubHTTPError as error:
        code = error.response.status_code
        log.debug("hub: %s", error)
        if code >= 500:
            raise StorageError(f"the hub answers {code} to the upload of {repository}; try again later, nothing was changed there") from None
        why = "set HF_TOKEN to a token that may write there" if code in (401, 403) else str(error.server_message or "it does not say why")
        raise InputError(f"the hub refuses to take {repository} ({code}): {why}") from None
    except (httpx.HTTPError, OSError) as error:
        log.debug("hub: %s", error)
        raise StorageError(f"the hub cannot be reached, so nothing was uploaded to {repository}; HF_ENDPOINT says where it is") from None

"""A look at a model or a data set of a hub, by the digests of the files that are read. Nothing is fetched but their names, and one head of a file.

A commit that the hub names may not be there after a history was rewritten, so that one file of it is asked for before anything follows from it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from fnmatch import fnmatch
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import quote

from recompress.errors import without_passwords
from recompress.watch.sources import Sight, Source, files_digest

if TYPE_CHECKING:
    from huggingface_hub import HfApi

TIMEOUT_S = 10.0
MOST_PAGES = 200
LONGEST_S = 7 * 86_400.0
"""However long a place asks to be left alone."""
COMMIT = re.compile(r"[0-9a-f]{40}")
LICENCE_FILE = re.compile(r"(licen[cs]e|copying)[^/]*$", re.IGNORECASE)
RepoKind = Literal["model", "dataset"]
WEIGHTS = "model.safetensors"


def look_at_hub(source: Source, kind: RepoKind, files: Sequence[str] | Callable[[str], bool], branch: str = "main") -> Sight:
    """What a repository holds now at ``branch`` and what it held at the pinned commit, of the files that are read (patterns, or whether a path is one of them)."""
    import httpx2 as httpx
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError

    try:
        return _look(HfApi(), source, kind, files, branch)
    except HfHubHTTPError as error:
        return Sight(source, away=_why(error), retry_after_s=_asked_for(error))
    except (httpx.HTTPError, OSError) as error:
        return Sight(source, away=f"the hub does not answer ({type(error).__name__}: {_first_line(error) or 'no reason given'})")
    except Exception as error:  # a page of a proxy, a mirror that is none: whatever the client makes of it, nothing was seen
        said = _first_line(error)
        return Sight(
            source, away=f"what answers is no hub ({type(error).__name__}{f': {said}' if said else ''}); see whether a proxy or HF_ENDPOINT leads elsewhere"
        )


def _look(api: HfApi, source: Source, kind: RepoKind, files: Sequence[str] | Callable[[str], bool], branch: str) -> Sight:
    from huggingface_hub.errors import RevisionNotFoundError

    now = api.repo_info(source.place, revision=branch, repo_type=kind, files_metadata=True, timeout=TIMEOUT_S)
    if now.id != source.place:
        return Sight(source, away=f"it was renamed to {now.id}; write that name where {source.place} stands, if it is what is meant")
    if getattr(now, "disabled", False):
        return Sight(source, away="the hub has disabled it")
    read, sha256 = _read(now, files)
    seen = Sight(source, digest=files_digest(read), revision=str(now.sha), pins=_pins(kind, str(now.sha), sha256))
    if now.sha == source.pinned:
        return replace(seen, pinned_digest=seen.digest)
    try:
        then = api.repo_info(source.place, revision=source.pinned, repo_type=kind, files_metadata=True, timeout=TIMEOUT_S)
    except RevisionNotFoundError:
        return replace(seen, waits=_rewritten(source, branch))
    pinned = replace(seen, pinned_digest=files_digest(_read(then, files)[0]))
    newer = _commits_after(api, source, kind, branch)
    if newer is None:
        return replace(pinned, waits=_rewritten(source, branch))
    pinned = replace(pinned, between=tuple(reversed(newer[1:])))
    if _licence(then) != _licence(now):
        return replace(pinned, waits=f"its licence is {_in_words(now) or 'not said any more'}, at the pinned commit it was {_in_words(then) or 'not said'}")
    if pinned.moved:
        _check_there(api, source, kind, str(now.sha), sorted(read))
    return pinned


def _commits_after(api: HfApi, source: Source, kind: RepoKind, branch: str) -> list[str] | None:
    """The branch's commits after the pinned one, newest first; ``None`` where that is none of them. The client's own list waits without end and asks
    again what it was refused, so that each page is asked for here, once."""
    from huggingface_hub.utils import get_session, hf_raise_for_status, parse_datetime  # type: ignore[attr-defined]

    headers, newer = api._build_hf_headers(), list[str]()
    url = f"{api.endpoint}/api/{kind}s/{source.place}/commits/{quote(branch, safe='')}"
    for _ in range(MOST_PAGES):
        answer = get_session().get(url, headers=headers, timeout=TIMEOUT_S)
        hf_raise_for_status(answer)
        listed = answer.json()
        if not isinstance(listed, list) or not listed:
            raise ValueError("it lists no commits")
        for commit in listed:
            if commit["id"] == source.pinned:
                return newer
            parse_datetime(commit["date"])  # a list of something else has none
            newer.append(str(commit["id"]))
        url = answer.links.get("next", {}).get("url", "")
        if not url:
            return None
    raise ValueError(f"{len(newer):,} commits were listed without the pinned one")


def _first_line(error: Exception) -> str:
    return without_passwords((str(error).splitlines() or [""])[0])[:120]


def _rewritten(source: Source, branch: str) -> str:
    return f"the pinned commit {source.pinned[:12]} is no part of its {branch} any more: its history was rewritten"


def _read(info: Any, files: Sequence[str] | Callable[[str], bool]) -> tuple[dict[str, str], str]:
    """The identities of the files that are read, by their paths, and the sha256 of a model's weights where it has some."""
    there = {sibling.rfilename: sibling for sibling in info.siblings or ()}
    if not COMMIT.fullmatch(str(info.sha)) or not there:
        raise ValueError("it names no commit or no files")
    names = [name for name in there if files(name)] if callable(files) else [name for name in there if any(fnmatch(name, pattern) for pattern in files)]
    identities = {name: _identity(there[name]) for name in sorted(names)}
    return identities, there[WEIGHTS].lfs.sha256 if WEIGHTS in there and there[WEIGHTS].lfs else ""


def _pins(kind: RepoKind, commit: str, sha256: str) -> dict[str, str]:
    """What a recipe pins of a model; a data set is pinned in ``params.yaml`` and accepted by a person."""
    return {} if kind == "dataset" else {"revision": commit} | ({"sha256": sha256} if sha256 else {})


def _identity(sibling: Any) -> str:
    identity = sibling.lfs.sha256 if sibling.lfs else sibling.blob_id
    if not isinstance(identity, str) or not identity:
        raise ValueError(f"it does not say which file {sibling.rfilename} is")
    return identity


def _licence(info: Any) -> dict[str, str]:
    """What a card says of the licence, and of one that the hub has on no list (``other``) the files that may hold it."""
    card = getattr(info, "card_data", None)
    said = {key: _as_text(card.get(key)) for key in ("license", "license_name", "license_link")} if card is not None else {}
    if "other" in said.get("license", ""):
        said |= {s.rfilename: _identity(s) for s in info.siblings or () if LICENCE_FILE.match(s.rfilename) or s.rfilename == said["license_link"]}
    return {key: value for key, value in said.items() if value}


def _in_words(info: Any) -> str:
    return " · ".join(value if key.startswith("license") else f"{key} {value[:12]}" for key, value in _licence(info).items())


def _as_text(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value or "")


def _check_there(api: HfApi, source: Source, kind: RepoKind, commit: str, names: Sequence[str]) -> None:
    """Raises what the client raises where the hub names a commit of which it does not give a file."""
    from huggingface_hub import get_hf_file_metadata, hf_hub_url

    if names:
        get_hf_file_metadata(hf_hub_url(source.place, names[0], repo_type=kind, revision=commit, endpoint=api.endpoint), timeout=TIMEOUT_S)


def _why(error: Any) -> str:
    """What the hub's refusal means, in words. It answers 401 for what is gone as for what is private."""
    from huggingface_hub.errors import DisabledRepoError, GatedRepoError, RepositoryNotFoundError, RevisionNotFoundError

    status = error.response.status_code
    if isinstance(error, GatedRepoError):
        return "it is gated; accept its terms on the hub and set HF_TOKEN"
    if isinstance(error, DisabledRepoError):
        return "the hub has disabled it"
    if isinstance(error, RevisionNotFoundError):
        return "the branch that is followed is gone"
    if isinstance(error, RepositoryNotFoundError) or status == 401:
        return f"it is gone, renamed or private (the hub answers {status}); if it is private, set HF_TOKEN"
    if status == 429:
        return f"the hub asks to be left alone for {_asked_for(error):.0f} s (429)"
    return f"the hub answers {status}"


def _asked_for(error: Any) -> float:
    """Seconds that the hub asks to be left alone, by its ``RateLimit`` or ``Retry-After`` header; 0 where it does not ask."""
    from huggingface_hub.utils import parse_ratelimit_headers  # type: ignore[attr-defined]

    limit = parse_ratelimit_headers(error.response.headers)
    if limit is not None and error.response.status_code == 429:
        return min(float(limit.reset_in_seconds), LONGEST_S)
    after = error.response.headers.get("Retry-After", "")
    return min(float(after), LONGEST_S) if after.isdecimal() else 0.0

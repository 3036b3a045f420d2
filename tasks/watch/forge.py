"""A forge: where a branch is pushed to, and asked to be merged. Its token is given to nobody else."""

from __future__ import annotations

import base64
import os
from pathlib import Path
from urllib.parse import urlsplit

from recompress.watch.settings import Forge
from tasks.watch.branch import git

TOKEN = "RECOMPRESS_FORGE_TOKEN"


def pull_request(root: Path, branch: str, title: str, story: str, forge: Forge | None) -> tuple[str, str]:
    """Push the branch and ask for it to be merged, where a forge and its token are given: the page of the request, or why there is none. A forge that refuses takes nothing
    from the proposal: the branch is there."""
    token = os.environ.get(TOKEN, "").strip()
    if forge is None or not token:
        return "", ""
    import httpx2 as httpx

    try:
        if not (token.isascii() and token.isprintable()) or " " in token:
            raise ValueError(f"{TOKEN} holds what no token does: a space, or a letter that is not ASCII")
        git(root, "push", "--quiet", forge.remote, f"refs/heads/{branch}:refs/heads/{branch}", env=_with_token(forge, token))
        request = {"title": title, "body": story, "head": branch, "base": forge.base}
        answer = httpx.post(f"{forge.api.rstrip('/')}/repos/{forge.repository}/pulls", json=request, headers={"Authorization": f"Bearer {token}"}, timeout=30)
        answer.raise_for_status()
        return str(answer.json()["html_url"]), ""
    except Exception as error:  # whatever a forge answers, the proposal is made
        return "", (str(error).splitlines() or [type(error).__name__])[0].replace(token, "***")[:200]


def _with_token(forge: Forge, token: str) -> dict[str, str]:
    """An environment in which git gives the token to the forge's own host and to no other, not even to one that the forge leads on to. It stands in no argument and in
    no address, where other users of this machine could read it."""
    place = urlsplit(forge.api)
    host = place.netloc.rpartition("@")[2]
    if host == "api.github.com" or (host.startswith("api.") and host.endswith(".ghe.com")):
        host = host.removeprefix("api.")  # GitHub's API has a host of its own
    login = base64.b64encode(f"x-access-token:{token}".encode()).decode()
    count, there = os.environ.get("GIT_CONFIG_COUNT", ""), f"http.{place.scheme}://{host}/"
    first = int(count) if count.isdecimal() else 0
    said = {"GIT_CONFIG_COUNT": str(first + 2)}
    for number, (key, value) in enumerate([("extraHeader", f"Authorization: Basic {login}"), ("followRedirects", "false")], start=first):
        said |= {f"GIT_CONFIG_KEY_{number}": f"{there}.{key}", f"GIT_CONFIG_VALUE_{number}": value}
    return said

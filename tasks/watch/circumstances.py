"""What could mend a run that was refused, beside what its key is made of: settings, the environment, a person's decisions in the ledger, and the data that lies here.

digest → recorded with how a run ended; where it is another one than any that was tried, the run is tried at once, else after its pause
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path

from recompress.data.sources import read_settings_of
from recompress.errors import RecompressError, without_passwords
from recompress.integrity.digest import sha256_bytes, sha256_json
from recompress.ledger import Ledger
from recompress.recipe import Plan

FILES = ("*.yaml", "*.lock", "*.dvc", "raw/*.dvc", ".dvc/config", ".dvc/config.local", "approvers/*.pem", "keys/*.pub.pem")
"""Settings and pins of a project, without the recipes and policies of others."""
NAMED = ("RECOMPRESS_", "MLFLOW_", "PREFECT_API_", "HF_", "DVC_")
ALSO = ("PATH", "HOME", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy", "SSL_CERT_FILE", "GIT_SSH_COMMAND")
BESIDE = ("RECOMPRESS_TELL", "RECOMPRESS_FORGE_TOKEN")
"""Heeded when a run is over."""
SECRET = ("TOKEN", "PASSWORD", "SECRET", "KEY")
DECISIONS = ("policy-pinned", "policy-unpinned", "baseline-accepted")


def decisions(ledger: Ledger, plan: Plan) -> str:
    """The hashes of what people decided last about a recipe and its model: policies that they accepted or pinned, baselines that they let count."""
    accepted = [entry for entry in ledger.entries("policy-recorded", recipe=plan.recipe.name) if entry.body.get("reason")]
    decided = ledger.last(*DECISIONS, model=plan.recipe.register_.model)
    return sha256_json([entry.hash for entry in (*accepted[-1:], *([decided] if decided else []))])


def settings_digest(root: Path, ledger: Ledger, plan: Plan, environment: Mapping[str, str] = os.environ) -> str:
    """Of all that a person writes or decides. No secret goes into it, but whether there is one."""
    paths = {path for pattern in FILES for path in root.glob(pattern)} | {plan.path.resolve(), root / plan.recipe.policy}
    files = {str(path): sha256_bytes(path.read_bytes()) for path in sorted(paths) if path.is_file()}
    return sha256_json([files, dict(_heeded(environment)), decisions(ledger, plan)])


def _heeded(environment: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    for name, value in sorted(environment.items()):
        if (name.startswith(NAMED) or name in ALSO) and name not in BESIDE:
            yield name, "is set" if any(word in name for word in SECRET) else without_passwords(value)


def data_digest(root: Path, plan: Plan) -> str:
    """Of the names, sizes and times of the data's files that lie here, raw and prepared."""
    chosen, listed = plan.recipe.dataset, dict[str, tuple[int, str]]()
    for name in filter(None, (chosen.name, chosen.unlabelled)):
        places = [root / "prepared" / name]
        with suppress(RecompressError):
            places.append(root / read_settings_of(root, name).source)
        for place in places:
            for path in (place, *place.rglob("*")):
                if path.is_file():
                    stat = path.stat()
                    listed[str(path)] = stat.st_size, str(stat.st_mtime_ns)
    return sha256_json(listed)

"""The key of a step together with what it is made of, so that the ledger can say later which part of it changed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from recompress.integrity import fingerprint

_parts: dict[str, dict[str, Any]] = {}
"""What the keys that this process has made are made of."""


def step_key(step: str, *, modules: Iterable[str], config: Any, inputs: Iterable[str], seed: int) -> str:
    """The key of a step, as ``recompress.integrity.fingerprint`` makes it; its parts are remembered for as long as this process lives."""
    modules, inputs = sorted(modules), list(inputs)
    key = fingerprint.step_key(step, modules=modules, config=config, inputs=inputs, seed=seed)
    _parts[key] = {
        "modules": modules,
        "code": fingerprint.code_fingerprint(*modules),
        "config": config,
        "inputs": inputs,
        "seed": seed,
        "versions": fingerprint.versions(),
    }
    return key


def made_of(key: str) -> dict[str, Any]:
    """The parts of a key: modules and the digest of their code, configuration, digests of its inputs, seed, versions. Empty for one that nobody made here."""
    return _parts.get(key, {})


def differences(before: Mapping[str, Any], now: Mapping[str, Any], names: Mapping[str, str]) -> list[str]:
    """Why two keys of one step differ, in words. ``names`` says what the digests of inputs stand for."""
    reasons = []
    if before["code"] != now["code"]:
        reasons.append(f"the code of {', '.join(now['modules'])}")
    reasons += [f"{dial.removeprefix('config.')}: {old} → {new}" for dial, old, new in changed_dials(before["config"], now["config"])]
    fresh = [digest for digest in now["inputs"] if digest not in before["inputs"]]
    reasons += [names.get(digest, digest if len(digest) != 64 else "an input") for digest in fresh]
    if not fresh and before["inputs"] != now["inputs"]:
        reasons.append("the order or the number of its inputs")
    if before["seed"] != now["seed"]:
        reasons.append(f"seed: {before['seed']} → {now['seed']}")
    reasons += [f"{name} {old} → {new}" for name, old, new in changed_dials(before["versions"], now["versions"])]
    return list(dict.fromkeys(reasons))


def changed_dials(before: Any, now: Any, above: str = "") -> list[tuple[str, Any, Any]]:
    """Name, value before and value now of everything that differs between two values of JSON; names have dots."""
    if isinstance(before, dict) and isinstance(now, dict):
        return [
            change
            for name in sorted(before.keys() | now.keys())
            for change in changed_dials(before.get(name, "nothing"), now.get(name, "nothing"), f"{above}.{name}" if above else str(name))
        ]
    return [] if before == now else [(above or "the configuration", before, now)]

"""What the body of a record must say, by its kind: the keys that somebody reads later, with their types. It may say more.

A record whose hash fits may still have been written by somebody who wrote nonsense. Whoever reads a body reads it through here, so that nobody else has to
doubt it.
"""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any, NoReturn

from pydantic import ValidationError

from recompress.records import Look, PromotionPlan

OPENERS = {"promotion-proposed": "promotion", "rollback": "rollback"}
"""Kinds of record whose body holds a whole plan, and the kind of that plan."""
OUTCOMES = ("proven", "refused")
"""How a look at a test split ends."""
Types = tuple[type, ...]
TEXT: Types = (str,)
MAYBE: Types = (str, type(None))
NUMBER: Types = (float, int, type(None))
OBJECT: Types = (dict, type(None))
_STEP = {"plan": TEXT, "model": TEXT}
_DECIDED = {"model": TEXT, "person": TEXT, "reason": TEXT, "before": TEXT}
_OPENED = {**_STEP, "alike": TEXT, "content": (dict,)}

NEEDED: dict[str, dict[str, Types]] = {
    "policy-recorded": {"recipe": TEXT, "policy_sha256": TEXT},
    "step-kept": dict.fromkeys(("key", "step", "run", "home", "place", "sha256"), TEXT),
    "policy-pinned": {**_DECIDED, "policy_sha256": TEXT, "policy": (dict,), "signers": (dict,)},
    "policy-unpinned": _DECIDED,
    "baseline-accepted": {**_DECIDED, "baseline_sha256": TEXT, "accepted_sha256": TEXT},
    "finalists-named": {"key": TEXT, "model": TEXT, "split": TEXT, "content": (dict,)},
    "test-look": {"key": TEXT, "model": TEXT, "split": TEXT, "content": (dict,)},
    "test-look-result": {"key": TEXT, "model": TEXT, "split": TEXT, "outcome": TEXT},
    "promotion-proposed": _OPENED,
    "rollback": _OPENED,
    "promotion-judged": {**_STEP, "verdict": MAYBE},
    "approval": {**_STEP, "approver": TEXT, "expires": TEXT},
    "rejection": {**_STEP, "reason": TEXT},
    "promotion-approved": _STEP,
    "key-used": dict.fromkeys(("name", "public"), TEXT),
    "version-uploading": {**_STEP, "manifest_sha256": TEXT, "model_sha256": TEXT},
    "promotion-intent": {**_STEP, "version": TEXT, "expected": OBJECT, "manifest_sha256": TEXT, "model_sha256": TEXT, "approval": MAYBE},
    "promotion-alias-moved": {**_STEP, "version": TEXT},
    "promotion-verified": {**_STEP, "version": TEXT, "manifest_sha256": TEXT},
    "promotion-committed": {**_STEP, "version": TEXT, "manifest_sha256": TEXT, "model_sha256": TEXT},
    "promotion-refused": {**_STEP, "reason": TEXT, "detail": TEXT},
    "promotion-expired": _STEP,
    "promotion-withdrawn": {**_STEP, "champion": MAYBE},
    "promotion-undo": {**_STEP, "reason": TEXT, "expected": OBJECT},
    "promotion-rolled-back": {**_STEP, "champion": MAYBE},
    "model-exported": dict.fromkeys(("model", "version", "to", "manifest_sha256"), TEXT),
    "source-seen": dict.fromkeys(("recipe", "source", "place", "digest", "revision"), TEXT),
    "source-not-visible": dict.fromkeys(("recipe", "source", "place", "why"), TEXT),
    "source-waits": dict.fromkeys(("recipe", "source", "place", "why"), TEXT),
    "watch-looked": {"recipe": TEXT},
    "watch-run": {"key": TEXT, "recipe": TEXT, "sources": (dict,), "after": TEXT},
    "watch-run-ended": dict.fromkeys(("key", "recipe", "outcome"), TEXT),
    "people-told": dict.fromkeys(("about", "event"), TEXT),
    "alias-moved-outside": {"model": TEXT, "ledger": MAYBE, "registry": MAYBE},
    "recovery": {**_STEP, "state": TEXT, "champion": MAYBE, "action": TEXT},
}
"""Kinds that are not here (what was found of data and models, and whatever a later version adds) may say anything."""
IF_SAID: dict[str, Types] = {
    **dict.fromkeys(("reason", "key", "signature", "metric", "promoted_before"), TEXT),
    **dict.fromkeys(("score", "spent_loss_after"), NUMBER),
    **dict.fromkeys(("proposal", "final"), (bool,)),
    **dict.fromkeys(("every_s", "exit_code"), NUMBER),
    "superseded": (list,),
    "rows": (dict,),
}
"""Keys that those kinds may leave out."""


def read_body(kind: str, text: str) -> dict[str, Any]:
    """The body of a record of this kind. Raises ``ValueError`` that says what is wrong with it, to be read behind "its body"."""
    if type(text) is not str:
        raise ValueError("is not text")
    try:
        body: dict[str, Any] = _decode(text)
        if "\\u" in text:
            json.dumps(body, ensure_ascii=False).encode()  # refuses halves of characters, which nobody can print
    except (ValueError, RecursionError):
        raise ValueError("is not JSON") from None
    check_body(kind, body)
    return body


def check_body(kind: str, body: dict[str, Any]) -> None:
    """Raises ``ValueError`` for a body that a record of this kind cannot have."""
    if type(body) is not dict:
        raise ValueError(f"is {_name(type(body))}, not an object")
    needed = NEEDED.get(kind)
    if needed is None:
        return
    for key, types in needed.items():
        if key not in body:
            raise ValueError(f"lacks {key!r}, which every {kind} record says")
        if type(body[key]) not in types:
            raise ValueError(f"says {key!r} as {_name(type(body[key]))}, not as {' or '.join(map(_name, types))}")
    for key in body.keys() & IF_SAID.keys():
        if type(body[key]) not in IF_SAID[key]:
            raise ValueError(f"says {key!r} as {_name(type(body[key]))}, not as {' or '.join(map(_name, IF_SAID[key]))}")
    if kind == "approval":
        _check_approval(body)
    elif kind in OPENERS:
        _check_plan(kind, body)
    elif kind == "finalists-named":
        _check_finalists(body["content"])
    elif kind == "test-look":
        _check_look(body)
    elif kind == "test-look-result" and body["outcome"] not in OUTCOMES:
        raise ValueError(f"says the outcome {body['outcome'][:40]!r}; a look is {' or '.join(OUTCOMES)}")


def _check_approval(body: dict[str, Any]) -> None:
    try:
        read_time(body["expires"])
    except ValueError as error:
        raise ValueError(f"expires at a time that {error}") from None
    if "signature" in body and type(body.get("key")) is not str:
        raise ValueError("is signed, but names no key")


def _check_finalists(content: dict[str, Any]) -> None:
    finalists = content.get("finalists")
    if type(finalists) is not list or not all(type(model) is dict and type(model.get("name")) is type(model.get("sha256")) is str for model in finalists):
        raise ValueError("holds no list of finalists with their names and digests")


def _check_look(body: dict[str, Any]) -> None:
    try:
        look = Look.model_validate(body["content"])
    except ValidationError as error:
        wrong = error.errors(include_url=False)[0]
        raise ValueError(f"holds no look: {'.'.join(map(str, wrong['loc'])) or 'content'}: {wrong['msg']}") from None
    if (look.key, look.model, look.split) != (body["key"], body["model"], body["split"]):
        raise ValueError("holds another look than the one that the record names")


def _check_plan(kind: str, body: dict[str, Any]) -> None:
    """A plan that a later version wrote may say more than this one knows."""
    content = body["content"]
    try:
        PromotionPlan.model_validate(content)
    except ValidationError as error:
        wrong = next((problem for problem in error.errors(include_url=False) if problem["type"] != "extra_forbidden"), None)
        if wrong is not None:
            raise ValueError(f"holds no plan: {'.'.join(map(str, wrong['loc'])) or 'content'}: {wrong['msg']}") from None
    if content.get("kind", "promotion") != OPENERS[kind] or content["model"] != body["model"]:
        raise ValueError(f"holds the plan of a {content.get('kind', 'promotion')} of {content['model']!r}, which is not what the record says")


def read_time(text: str) -> datetime:
    """The moment that a record names. Raises ``ValueError``, to be read behind "its time", for text that is no time and for a time without a zone."""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        moment = None
    if moment is None or moment.tzinfo is None:
        raise ValueError(f"says {text[:40]!r}, which is no time of RFC 3339")
    return moment


def _name(kind: type) -> str:
    return {str: "text", int: "a number", float: "a number", dict: "an object", list: "a list", bool: "true or false"}.get(kind, "null")


def _no_constant(text: str) -> NoReturn:
    raise ValueError(f"{text} is not JSON")


_decode = json.JSONDecoder(parse_constant=_no_constant).decode

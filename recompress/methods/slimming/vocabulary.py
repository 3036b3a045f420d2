"""A tokenizer with fewer tokens, as surgery on ``tokenizer.json``.

Text whose tokens all stay is cut into the same tokens as before:

- WordPiece takes the longest piece that it knows; the longest that it knew is still there.
- Unigram takes the best path; it is still there, with its score, and the penalty of unknown characters hangs on the lowest score, whose piece stays too.
- BPE joins the pair of the lowest rank, again and again; for every token that stays, the pairs that make it stay, with what they make on the way. The pairs
  inside a token are the same wherever it stands, because no pair across its borders was ever joined.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from recompress.errors import InputError, IntegrityError

if TYPE_CHECKING:
    from tokenizers import Tokenizer

Merge = tuple[str, str]
KINDS = ("WordPiece", "Unigram", "BPE")


def tokens_of(definition: dict[str, Any]) -> dict[int, str]:
    """Every token by its number: the model's own and the added ones."""
    vocabulary = definition["model"]["vocab"]
    own = {i: piece for i, (piece, _) in enumerate(vocabulary)} if definition["model"]["type"] == "Unigram" else {i: token for token, i in vocabulary.items()}
    return own | {added["id"]: added["content"] for added in definition["added_tokens"]}


def needed(definition: dict[str, Any], used: Iterable[int], *, characters: bool) -> set[int]:
    """The tokens that must stay when those in ``used`` do: special ones, the unknown one, single characters if asked, and what BPE joins on the way.

    Raises ``InputError`` for a kind of tokenizer that is not known.
    """
    model = definition["model"]
    if model.get("type") not in KINDS:
        raise InputError(f"the vocabulary of a {model.get('type')} tokenizer cannot be trimmed; known: {', '.join(KINDS)}")
    tokens = tokens_of(definition)
    numbers = {token: number for number, token in tokens.items()}
    stay = set(used) | {added["id"] for added in definition["added_tokens"]} | set(_numbers_in(definition["post_processor"]))
    stay |= {numbers[model["unk_token"]]} if model.get("unk_token") in numbers else set()
    if model["type"] == "Unigram":
        stay |= {model["unk_id"]} if model.get("unk_id") is not None else set()
        stay.add(min(range(len(model["vocab"])), key=lambda i: model["vocab"][i][1]))
    if model.get("byte_fallback"):
        stay |= {number for token, number in numbers.items() if len(token) == 6 and token.startswith("<0x") and token.endswith(">")}
    # Without an unknown token, a character that BPE does not know would vanish from the text.
    if characters or (model["type"] == "BPE" and model.get("unk_token") is None):
        prefix = model.get("continuing_subword_prefix") or ""
        stay |= {number for token, number in numbers.items() if len(token) == 1 or (prefix and len(token) == len(prefix) + 1 and token.startswith(prefix))}
    if model["type"] == "BPE":
        ranks = _ranks(model)
        stay |= {numbers[part] for number in tuple(stay) for part in _parts(tokens[number], ranks) if part in numbers}
    return stay


def trimmed(definition: dict[str, Any], order: list[int]) -> dict[str, Any]:
    """The tokenizer in which token ``order[i]`` has the number ``i`` and all others are gone."""
    new = {old: i for i, old in enumerate(order)}
    result: dict[str, Any] = json.loads(json.dumps(definition))
    model = result["model"]
    if model["type"] == "Unigram":
        model["vocab"] = [piece for i, piece in sorted((new[i], piece) for i, piece in enumerate(model["vocab"]) if i in new)]
        model["unk_id"] = None if model["unk_id"] is None else new[model["unk_id"]]
    else:
        model["vocab"] = dict(sorted(((token, new[i]) for token, i in model["vocab"].items() if i in new), key=lambda item: item[1]))
    if model["type"] == "BPE":
        known = model["vocab"]
        model["merges"] = [list(merge) for merge in _merges(model) if merge[0] in known and merge[1] in known and "".join(merge) in known]
    for added in result["added_tokens"]:
        added["id"] = new[added["id"]]
    _renumber(result["post_processor"], new)
    return result


def check_trimmed(old: Tokenizer, new: Tokenizer, order: list[int]) -> None:
    """Raises ``IntegrityError`` when a token has not got the number that it should."""
    for number, was in enumerate(order):
        if new.id_to_token(number) != old.id_to_token(was):
            raise IntegrityError(f"token {old.id_to_token(was)!r} should get the number {number}, where {new.id_to_token(number)!r} stands")
    if new.get_vocab_size() != len(order):
        raise IntegrityError(f"the trimmed tokenizer knows {new.get_vocab_size()} tokens, {len(order)} were kept")


def _merges(model: dict[str, Any]) -> Iterator[Merge]:
    if model.get("continuing_subword_prefix") or model.get("end_of_word_suffix"):
        raise InputError("the vocabulary of a BPE tokenizer with prefixes or suffixes cannot be trimmed")
    for merge in model["merges"]:
        left, right = merge.split(" ") if isinstance(merge, str) else merge
        yield left, right


def _ranks(model: dict[str, Any]) -> dict[Merge, int]:
    return {merge: rank for rank, merge in enumerate(_merges(model))}


def _parts(token: str, ranks: dict[Merge, int]) -> set[str]:
    """Everything that stands on the way from a token's characters to the token, the characters included."""
    parts = list(token)
    seen = set(parts)
    while len(parts) > 1:
        rank, at = min((ranks.get((left, right), len(ranks)), i) for i, (left, right) in enumerate(zip(parts, parts[1:], strict=False)))
        if rank == len(ranks):
            break
        parts[at : at + 2] = [parts[at] + parts[at + 1]]
        seen.add(parts[at])
    return seen


def _processors(step: dict[str, Any] | None) -> list[dict[str, Any]]:
    return [] if step is None else [step, *(inner for child in step.get("processors", ()) for inner in _processors(child))]


def _numbers_in(post_processor: dict[str, Any] | None) -> Iterator[int]:
    """Numbers of the tokens that a post-processor puts around a text."""
    for step in _processors(post_processor):
        if step["type"] == "TemplateProcessing":
            yield from (number for special in step["special_tokens"].values() for number in special["ids"])
        elif step["type"] in ("BertProcessing", "RobertaProcessing"):
            yield from (step["sep"][1], step["cls"][1])


def _renumber(post_processor: dict[str, Any] | None, new: dict[int, int]) -> None:
    for step in _processors(post_processor):
        if step["type"] == "TemplateProcessing":
            for special in step["special_tokens"].values():
                special["ids"] = [new[number] for number in special["ids"]]
        elif step["type"] in ("BertProcessing", "RobertaProcessing"):
            for name in ("sep", "cls"):
                step[name][1] = new[step[name][1]]

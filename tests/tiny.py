"""Models and data small enough for tests: a randomly initialised BERT of width 32 over a vocabulary of invented words."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

from recompress.benchmarks import Example
from recompress.models.checkpoint import Checkpoint, Info
from recompress.models.heads import head_of

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

TAGS = ("O", "B-LOC", "I-LOC", "B-PER", "I-PER")
TOPICS = ("food", "sport", "work")
NAMES = {"LOC": ("nairobi", "kisumu", "mto"), "PER": ("asha", "juma", "bibi")}
MORE = {"LOC": ("mjini", "kaskazini"), "PER": ("otieno", "kamau")}
PLAIN = ("na", "ya", "kwa", "alikwenda", "nyumba", "kula", "cheza", "kazi", "leo", "jana", ".", ",")
TOPIC_WORDS = {"food": "kula", "sport": "cheza", "work": "kazi"}
PIECES = ("##ni", "##s", "##la")
ASKED = {"PER": "kwa", "LOC": "ya"}
"""What a question asks for; these words stand in no text that is asked about."""


def tiny_tokenizer() -> PreTrainedTokenizerBase:
    """WordPiece over some dozens of words; anything else is [UNK]."""
    from transformers import BertTokenizer

    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *PLAIN, *NAMES["LOC"], *NAMES["PER"], *MORE["LOC"], *MORE["PER"], *PIECES]
    return BertTokenizer(vocab={word: i for i, word in enumerate(words)})


def tiny_checkpoint(benchmark: str = "token-classification", *, seed: int = 0, layers: int = 2, hidden: int = 32, dropout: float = 0.1) -> Checkpoint:
    """A randomly initialised BERT with a head for the benchmark."""
    import torch
    from transformers import BertConfig

    labels = head_of(benchmark).outputs or (TAGS if benchmark == "token-classification" else TOPICS)
    tokenizer = tiny_tokenizer()
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        config = BertConfig(
            vocab_size=len(tokenizer),
            hidden_size=hidden,
            num_hidden_layers=layers,
            num_attention_heads=4,
            intermediate_size=2 * hidden,
            max_position_embeddings=64,
            hidden_dropout_prob=dropout,
            attention_probs_dropout_prob=dropout,
            num_labels=len(labels),
            id2label=dict(enumerate(labels)),
            label2id={label: i for i, label in enumerate(labels)},
        )
        network = head_of(benchmark).auto_model().from_config(config)
    return Checkpoint(network.eval(), tokenizer, Info(benchmark=benchmark, labels=labels, max_length=32))


def tiny_examples(count: int, benchmark: str = "token-classification", *, seed: int = 0) -> list[Example]:
    """Sentences whose labels follow from their words, so that a small model can learn them."""
    draw = random.Random(seed)
    make = {
        "token-classification": _tagged,
        "question-answering": _question,
        "pair-classification": _pair,
        "multi-label-classification": _several,
        "text-regression": _number,
    }.get(benchmark, _text)
    return [make(draw) for _ in range(count)]


def _tagged(draw: random.Random) -> Example:
    words: list[str] = []
    tags: list[str] = []
    for _ in range(draw.randint(2, 9)):
        kind = draw.choice(("", "", "LOC", "PER"))
        if not kind:
            words.append(draw.choice(PLAIN))
            tags.append("O")
            continue
        length = draw.randint(1, 2)
        words += [draw.choice(NAMES[kind]), draw.choice(MORE[kind])][:length]
        tags += [f"B-{kind}", f"I-{kind}"][:length]
    return Example(tuple(words), tuple(tags), draw.choice(("swa", "yor")))


def _text(draw: random.Random) -> Example:
    topic = draw.choice(TOPICS)
    words = [*draw.choices(NAMES["PER"] + NAMES["LOC"], k=draw.randint(1, 6)), TOPIC_WORDS[topic]]
    draw.shuffle(words)
    return Example((" ".join(words),), (topic,), draw.choice(("swa", "yor")))


def _pair(draw: random.Random) -> Example:
    """The topic of the second text; in one pair of three the first has another, so that only who knows which is which can tell."""
    topic = draw.choice(TOPICS)
    others = [TOPIC_WORDS[other] for other in TOPICS if other != topic]
    first, second = draw.choice(others) if draw.random() < 1 / 3 else "leo", TOPIC_WORDS[topic]
    texts = [" ".join(draw.sample([*draw.choices(NAMES["PER"], k=draw.randint(1, 3)), word], k=1) + [word]) for word in (first, second)]
    return Example((texts[0], texts[1]), (topic,), draw.choice(("swa", "yor")))


def _several(draw: random.Random) -> Example:
    """A topic for each of its words that stands in the text, none and all of them included."""
    topics = [topic for topic in TOPICS if draw.random() < 0.5]
    words = [*draw.choices(NAMES["PER"] + NAMES["LOC"], k=draw.randint(1, 5)), *(TOPIC_WORDS[topic] for topic in topics)]
    draw.shuffle(words)
    return Example((" ".join(words),), tuple(sorted(topics)) or ("",), draw.choice(("swa", "yor")))


def _number(draw: random.Random) -> Example:
    """100, and 7 more for one word, 3 less for another."""
    words = draw.choices(("kula", "cheza", "leo", "jana"), k=draw.randint(2, 6))
    return Example((" ".join(words),), (f"{100 + 7 * words.count('kula') - 3 * words.count('cheza')}",), draw.choice(("swa", "yor")))


def _question(draw: random.Random) -> Example:
    """Who or where? A name of that kind stands in the text once, or, in one question of five, not at all."""
    kind = draw.choice(("PER", "LOC"))
    words = draw.choices([word for word in PLAIN if word not in (".", ",", *ASKED.values())], k=draw.randint(3, 9))
    answer = ""
    if draw.random() < 0.8:
        answer = draw.choice(NAMES[kind]) + (f" {draw.choice(MORE[kind])}" if draw.random() < 0.5 else "")
        words.insert(draw.randint(0, len(words)), answer)
    if draw.random() < 0.5:  # somebody of the other kind, who is not asked for
        words.insert(0, draw.choice(NAMES["LOC" if kind == "PER" else "PER"]))
    text = " ".join(words)
    label = f"{text.index(answer)}:{answer}" if answer else ""
    return Example((ASKED[kind], text), (label,), draw.choice(("swa", "yor")))

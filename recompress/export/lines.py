"""The Python lines of a card: how a text becomes what the graph is asked, with ``tokenizers`` alone, cut where the text was cut that the model was judged on.

``tokenizer.json`` itself cuts nothing, because it would cut for everybody who reads it; whoever asks a graph about more tokens than it has positions gets an error,
and about more than it was judged with, answers that nobody judged.
"""

from __future__ import annotations

from recompress.benchmarks import benchmark_of
from recompress.benchmarks.question_answering import QuestionAnswering
from recompress.models.checkpoint import Info
from recompress.models.heads import head_of

ONE = """tokenizer.enable_truncation({longest}, direction="{side}")  # as the model was judged; one text at a time, so nothing is padded
{text}
[logits] = {ask}
"""
TEXT = """text = tokenizer.encode(" ".join(unicodedata.normalize("NFC", "…").split()))"""
RUNNING = """text = tokenizer.encode(unicodedata.normalize("NFC", "…"))"""
PAIR = """text = tokenizer.encode(*(" ".join(unicodedata.normalize("NFC", one).split()) for one in ("…", "…")))"""
WORDS = """words = ["…", "…"]  # punctuation marks are words of their own
text = tokenizer.encode([unicodedata.normalize("NFC", word) for word in words], is_pretokenized=True)
first = [text.word_ids.index(i) for i in range(len(words)) if i in text.word_ids]  # where each word's tag stands; what is cut off has none"""
WINDOWS = """longest, stride = {longest}, {stride}  # as the model was judged: a long context in windows that overlap, one at a time
asked, read = "question", "context"
room = longest - tokenizer.num_special_tokens_to_add(True)
question, context = (tokenizer.encode(unicodedata.normalize("NFC", one), add_special_tokens=False) for one in (" ".join(asked.split()), read))
if len(question) > room // 2:
    question = tokenizer.encode(asked[: question.offsets[room // 2 - 1][1]], add_special_tokens=False)
    question.truncate(room // 2)
left = room - len(question)
context.truncate(left, stride=min(stride, left // 2))
whole = tokenizer.post_process(question, context, True)
for text in [whole, *whole.overflowing]:
    start_logits, end_logits = {ask}
"""


def lines_of(info: Info, ask: str, *, side: str, segments: bool) -> str:
    """From ``tokenizer`` to ``logits``. ``ask`` is how the runtime is asked, ``{given}`` what; ``side`` is where a long text is cut."""
    head = head_of(info.benchmark)
    given = ['"input_ids": [text.ids]', '"attention_mask": [[1] * len(text.ids)]', *(['"token_type_ids": [text.type_ids]'] if segments else [])]
    asked = ask.format(given=f"{{{', '.join(given)}}}")
    benchmark = benchmark_of(info)
    if isinstance(benchmark, QuestionAnswering):
        return WINDOWS.format(longest=info.max_length, stride=benchmark.dials.stride, ask=asked)
    text = WORDS if head.reads_words else PAIR if head.texts > 1 else RUNNING if head.pretrained else TEXT
    return ONE.format(longest=info.max_length, side=side, text=text, ask=asked)

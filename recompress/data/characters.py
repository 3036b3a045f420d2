"""Characters that nobody sees or nobody wrote, and what they should have been.

*Hidden* characters take no room: zero-width spaces and joiners, soft hyphens, direction marks. A joiner between two symbols (emoji) is meant.
*Broken* ones are left from text that was decoded with the wrong code page: C1 controls, and U+FFFD, which stands for what is lost for good. *Half* a character is
left where text was cut in the middle of an emoji: JSON can say it, UTF-8 cannot, so no tokenizer and no file takes it.
"""

from __future__ import annotations

import re
import unicodedata
from contextlib import suppress

_SYMBOL = "\u2190-\u2bff\ufe0f\U0001f000-\U0001faff"
HIDDEN = re.compile(
    "[\u00ad\u061c\u180e\u200b\u200c\u200e\u200f\u202a-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb]"
    f"|(?<![{_SYMBOL}])\u200d|\u200d(?![{_SYMBOL}])"
    f"|(?<![{_SYMBOL}\u00a9\u00ae\u203c-\u2139#*0-9])[\ufe0e\ufe0f]"
)
_MAYBE_HIDDEN = re.compile("[\u00ad\u061c\u180e\u200b-\u200f\u202a-\u202e\u2060-\u206f\ufe0e\ufe0f\ufeff\ufff9-\ufffb]")
LOST = "\ufffd"
HALF = re.compile("[\ud800-\udfff]")
"""Half of a character, which JSON may hold and no tokenizer takes."""
BROKEN = re.compile(f"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff{LOST}]")


def has_hidden(text: str) -> bool:
    """The plain character class rules almost every text out; it is much faster than looking around joiners."""
    return _MAYBE_HIDDEN.search(text) is not None and HIDDEN.search(text) is not None


def has_broken(text: str) -> bool:
    return BROKEN.search(text) is not None


def has_half(text: str) -> bool:
    return HALF.search(text) is not None


def tidy(label: str) -> str:
    """A label as it is meant: composed, nothing hidden in it, no white space around it and single spaces inside; else "food " is another class than "food"."""
    return label if label.isascii() and label.isprintable() and label.split() == [label] else " ".join(to_nfc(without_hidden(to_nfc(label))).split())


def is_nfc(text: str) -> bool:
    """Whether characters with marks are written in the one composed form (Unicode NFC)."""
    return unicodedata.is_normalized("NFC", text)


def to_nfc(text: str) -> str:
    return unicodedata.normalize("NFC", text)


def without_hidden(text: str) -> str:
    """Repeated, because what stood on both sides of a hidden character may now be joined to one."""
    while has_hidden(text):
        text = HIDDEN.sub("", text)
    return text


def repaired(text: str) -> str:
    """Undo one wrong decoding (UTF-8 bytes read as Latin-1) where that explains the controls; drop the controls where it does not. U+FFFD stays."""
    if not has_broken(text):
        return text
    return " ".join(_repair_word(word) for word in text.split(" "))


def _repair_word(word: str) -> str:
    if not has_broken(word):
        return word
    with suppress(UnicodeError):
        word = word.encode("latin-1").decode("utf-8")
    return "".join(character for character in word if character == LOST or BROKEN.match(character) is None)

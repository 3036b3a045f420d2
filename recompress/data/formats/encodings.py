"""Which encoding text is in that is not UTF-8: a guess for a message, never for reading."""

from __future__ import annotations

AROUND = 1 << 15
"""Bytes on each side of the first that is not UTF-8 that a guess looks at."""
OTHERS = (
    *("cp1250", "cp1251", "cp1253", "cp1254", "cp1255", "cp1256", "cp1257", "cp1258", "koi8_r", "mac_roman"),
    *("shift_jis", "euc_jp", "euc_kr", "gb18030", "big5", "tis_620"),
)


WORDS = "; it looks like {0} (encoding: {0} reads it so, if it is)"


def named_wide(data: bytes) -> str:
    """``utf-16`` or ``utf-32`` (with byte order where no mark says it) for text whose characters take two or four bytes; otherwise nothing."""
    if data.startswith((b"\xff\xfe\x00\x00", b"\x00\x00\xfe\xff")):
        return "utf-32"
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        return "utf-16"
    start = data[:4096]
    even, odd = start[::2].count(0), start[1::2].count(0)
    if not start or even + odd < len(start) / 4:
        return ""
    return "utf-16-le" if odd > even else "utf-16-be"


def looks_like(data: bytes, first: int) -> str:
    """Words to put behind "not UTF-8": which encoding it probably is, and the dial that reads it so. ``first`` is the first byte that is not UTF-8."""
    from charset_normalizer import from_bytes

    around = data[max(0, first - AROUND) : first + AROUND]
    if _is_western(around):
        return WORDS.format("cp1252")
    best = from_bytes(around, cp_isolation=list(OTHERS)).best()
    return WORDS.format(best.encoding) if best is not None else ""


def _is_western(data: bytes) -> bool:
    """Mostly ASCII, and whatever is not becomes a letter, a quotation mark or a dash in cp1252: what spreadsheets in western Europe write. Other bytes are guessed."""
    try:
        others = [character for character in data.decode("cp1252") if not character.isascii()]
    except UnicodeDecodeError:
        return False
    return len(others) < 0.2 * len(data) and all(character.isalpha() or character in "‘’“”„«»–—…€°§" for character in others)

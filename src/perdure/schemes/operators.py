"""Conditions as other notations spell them, in Python's words: ``!a ^ b``, ``a && !b``, ``a v b``."""

from __future__ import annotations

import re

_TEXT = re.compile(r"""("(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*')""")
_WORDS = (
    (re.compile(r"&&|\^"), " and "),
    (re.compile(r"\|\||\bv\b"), " or "),
    (re.compile(r"!(?!=)"), " not "),
    (re.compile(r"===?"), "=="),
    (re.compile(r"!=="), "!="),
    (re.compile(r"\btrue\b"), "True"),
    (re.compile(r"\bfalse\b"), "False"),
    (re.compile(r"\bnull\b"), "None"),
)


def pythonic(text: str) -> str:
    """Spell operators as Python does; what stands in quotes is left as it is."""
    parts = _TEXT.split(text)
    for number in range(0, len(parts), 2):
        for pattern, word in _WORDS:
            parts[number] = pattern.sub(word, parts[number])
        parts[number] = re.sub(r"\s+", " ", parts[number])
    return "".join(parts).strip()

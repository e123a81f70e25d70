"""Text that every store keeps, and that its indexes take: what names, keys and ids are held to.

No store keeps a lone surrogate, Postgres keeps no NUL, and an entry of an index of it has 2,704 bytes for all its
columns: an app (100), an id (512), and what follows.
"""

from __future__ import annotations

from typing import TypeGuard

NAME_BYTES_MAX = 512  # of what is declared or published: workflows, steps, topics, events, streams, patches
KEY_BYTES_MAX = 1024  # of a message's key, and of a deduplication key (beside a queue's name, 400)
VERSION_MAX = 200  # characters
NEEDED = "without NUL and lone surrogates"  # how an error says it


def is_kept(text: object, most: int) -> TypeGuard[str]:
    """Whether it is text of at most so many bytes that every store keeps as it is."""
    if not isinstance(text, str) or "\0" in text:
        return False
    try:
        return len(text.encode()) <= most
    except UnicodeEncodeError:
        return False


def is_version(text: object) -> TypeGuard[str]:
    """Whether it can name a version of the code: printable, so that it has no NUL and no surrogate either."""
    return isinstance(text, str) and 0 < len(text) <= VERSION_MAX and text.isprintable()


def written_out(text: str) -> str:
    r"""Text for people, as every store keeps it: NUL and lone surrogates as ``\x00`` and ``\ud800``."""
    if "\0" in text:
        text = text.replace("\0", "\\x00")
    return text if text.isascii() else text.encode("utf-8", "backslashreplace").decode()

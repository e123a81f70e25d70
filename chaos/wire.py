"""The frames of Postgres' protocol (version 3), as far as a proxy must understand them.

One ``Conversation`` per connection reads the bytes of both directions as they pass, in pieces of any size, and knows at
each moment: what was asked since the last synchronisation, whether that writes, whether a transaction is open that has
written, and whether the server has answered all of it. It changes nothing and keeps no payload.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import lru_cache

PLAIN_LENGTHS = {80877103, 80877104, 80877102}  # SSLRequest, GSSENCRequest, CancelRequest: codes instead of a version
WRITES = re.compile(r"\b(insert|update|delete|merge|truncate|create|alter|drop)\b", re.IGNORECASE)
READY = b"Z"


class Frames:
    """Cuts a stream of bytes into messages.

    ``typed``: each begins with a byte that says its type. It may change between two messages.
    """

    def __init__(self, *, typed: bool) -> None:
        self.typed = typed
        self._rest = b""

    def feed(self, data: bytes) -> Iterator[tuple[bytes, bytes]]:
        """The messages that are complete now: (type, body)."""
        buffer = self._rest + data if self._rest else data
        at = 0
        try:
            while True:
                head = 1 if self.typed else 0
                if len(buffer) - at < head + 4:
                    return
                length = int.from_bytes(buffer[at + head : at + head + 4], "big")
                end = at + head + length
                if len(buffer) < end:
                    return
                kind, body = buffer[at : at + head], buffer[at + head + 4 : end]
                at = end
                yield kind, body
        finally:
            self._rest = buffer[at:]


@lru_cache(maxsize=1000)
def writes(sql: str) -> bool:
    """Whether a statement does; few are asked, each of them thousands of times."""
    return WRITES.search(sql) is not None


def _text(body: bytes, nth: int = 0) -> str:
    """The nth zero-terminated text of a message."""
    parts = body.split(b"\0", nth + 1)
    return parts[nth].decode(errors="replace") if len(parts) > nth else ""


class Conversation:
    """See the head of this file."""

    def __init__(self) -> None:
        self._front = Frames(typed=False)  # until the startup message has come
        self._back = Frames(typed=True)
        self._statements: dict[str, str] = {}  # prepared: name -> SQL
        self.asked: list[str] = []  # SQL executed since the server was last ready, in order
        self.rows = 0  # that the server answered with since
        self.failed = False
        self.open = False  # a transaction is open
        self.wrote = False  # … and something was written in it
        self.logged_in = False
        self.listens = False  # for notifications
        self._plain_answers = 0  # one-byte answers that are due (to an SSLRequest)

    @property
    def writing(self) -> bool:
        """Whether what was asked writes, or ends a transaction that has written."""
        return any(map(writes, self.asked)) or (self.wrote and "commit" in map(str.lower, self.asked))

    def client_says(self, data: bytes) -> None:
        for kind, body in self._front.feed(data):
            if not kind:
                if int.from_bytes(body[:4], "big") in PLAIN_LENGTHS:
                    self._plain_answers += 1
                else:
                    self._front.typed = True  # from here on
            elif kind == b"P":
                self._statements[_text(body)] = _text(body, 1)
            elif kind == b"B":
                self._asks(self._statements.get(_text(body, 1), ""))
            elif kind == b"Q":
                self._asks(_text(body).strip().rstrip(";"))

    def _asks(self, sql: str) -> None:
        self.asked.append(sql)
        self.listens = self.listens or sql.lower().startswith("listen")

    def server_says(self, data: bytes) -> bool:
        """Whether this made the server ready again, with everything asked committed and nothing failed."""
        while self._plain_answers and data:
            data, self._plain_answers = data[1:], self._plain_answers - 1
        committed = False
        for kind, body in self._back.feed(data):
            if kind == b"D":
                self.rows += 1
            elif kind == b"E":
                self.failed = True
            elif kind == READY:
                committed = self._ready(body)
        return committed

    def _ready(self, status: bytes) -> bool:
        wrote, failed, known = self.writing, self.failed, self.logged_in
        self.open = status == b"T"
        self.wrote = self.open and (self.wrote or wrote)
        self.last, self.last_rows = self.asked, self.rows
        self.asked, self.rows, self.failed, self.logged_in = [], 0, False, True
        return known and wrote and not failed and status == b"I"

    last: list[str] = []  # noqa: RUF012 - replaced, never changed: what was asked before the server was last ready
    last_rows = 0

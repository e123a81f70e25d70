"""Identities: workflow ids, lineages, claim tokens, nonces.

A workflow id is chosen by the user or a UUIDv7. All other identities are 16 random-enough bytes made by the client,
so that no write ever waits for the database to name something. Of the wakes of an end one half says whose end it is.
"""

from __future__ import annotations

import hashlib
import itertools
import os
import threading
import uuid
from typing import NamedTuple

from perdure.model.real import time

ID_BYTES_MAX = 512
MARK_BYTES = 8  # half of an identity


class RunKey(NamedTuple):
    """One execution: the workflow id and its run number (1, 2, 3 …)."""

    id: str
    run: int


class Holding(NamedTuple):
    """A run and the claim token under which it is held: who held it before under another one holds it no more."""

    id: str
    run: int
    claim: bytes | None

    @property
    def key(self) -> RunKey:
        """The run alone."""
        return RunKey(self.id, self.run)


class TokenMaker:
    """Makes 16-byte identities, unique without a system call each: 8 random bytes, then a counter.

    Tokens are compared, never guessed against an adversary: whoever can write to the database needs none.
    A fork must make a new one (the random half is what keeps two processes apart).
    """

    __slots__ = ("_counter", "_prefix")

    def __init__(self) -> None:
        self._prefix = os.urandom(8)
        self._counter = itertools.count(int.from_bytes(os.urandom(4), "big"))

    def __call__(self) -> bytes:
        return self._prefix + next(self._counter).to_bytes(8, "big")


def end_mark(id: str) -> bytes:
    """The first half of the nonces of an end's wakes: a parent of thousands sees which child has ended."""
    return hashlib.blake2b(id.encode(), digest_size=MARK_BYTES).digest()


def end_token(id: str, token: bytes) -> bytes:
    """The nonce of these wakes, from a token that nothing else is made of."""
    return end_mark(id) + hashlib.blake2b(token, digest_size=MARK_BYTES).digest()


class MessageIds:
    """16-byte ids that sort by the time they were made, and strictly within this process: time, counter, random."""

    __slots__ = ("_last", "_tail")

    def __init__(self) -> None:
        self._last = 0
        self._tail = os.urandom(8)

    def __call__(self) -> bytes:
        self._last = max(self._last + 1, time.time_ns() // 1000)
        return self._last.to_bytes(8, "big") + self._tail


class WorkflowIds:
    """UUIDv7 text, strictly increasing within this process. Any thread may ask.

    (RFC 9562, section 6.2, method 1: a counter after the time.)
    """

    __slots__ = ("_last", "_lock", "_tail")

    def __init__(self) -> None:
        self._last = 0
        self._lock = threading.Lock()
        self._tail = os.urandom(6).hex()

    def __call__(self) -> str:
        # 48 bits of milliseconds and 26 bits of counter advance as one number; the rest is this process's random tail.
        with self._lock:
            self._last = last = max(self._last + 1, (time.time_ns() // 1_000_000) << 26)
        ms, counter = last >> 26, last & 0x3FFFFFF
        a, b = counter >> 14, counter & 0x3FFF
        return f"{ms >> 16:08x}-{ms & 0xFFFF:04x}-7{a:03x}-{0x8000 | b:04x}-{self._tail}"


def idempotency_key(lineage: bytes, path: str) -> str:
    """The same for every attempt of a step, on every executor; different for each step, run and fork."""
    return str(uuid.UUID(bytes=hashlib.blake2b(path.encode(), key=lineage, digest_size=16).digest()))


def child_id(parent: RunKey, path: str) -> str:
    """The id a child gets when none was chosen: derived, so that a replay names the same child."""
    return f"{parent.id}:{path}" if parent.run == 1 else f"{parent.id}#{parent.run}:{path}"


def derived_lineage(lineage: bytes, path: str, fingerprint: bytes) -> bytes:
    """The lineage of the child that a run begins by its call at ``path``, for what the call asks.

    Derived as ids are: a child that a failover or a restored backup has lost is begun again under the same idempotency
    keys. A call that asks for something else there begins something else, under keys of its own.
    """
    asked = path.encode() + b"\0" + fingerprint
    return hashlib.blake2b(asked, key=lineage, person=b"lineage", digest_size=16).digest()


def derived_uuid(lineage: bytes, count: int) -> uuid.UUID:
    """A version 4 UUID that a replay makes again: the ``count``-th of this lineage."""
    digest = hashlib.blake2b(count.to_bytes(8, "big"), key=lineage, person=b"uuid4", digest_size=16)
    return uuid.UUID(bytes=digest.digest(), version=4)

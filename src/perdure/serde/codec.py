"""Codecs: what happens to a value's JSON on its way to the database and back, by default nothing.

Promises:

- a coded value is stored as ``{"$coded":"…"}`` (base64): JSON that a text column holds and a person recognises; no
  value is ever stored so by itself, since keys of users that begin with "$" are stored with one more;
- what was stored before a codec was set is given as it stands;
- what a codec gives back is taken only if it is JSON; anything else is an error that names no part of the value.
"""

from __future__ import annotations

from base64 import b64decode, b64encode
from collections.abc import Callable

import msgspec

from perdure.errors import Unserializable

PAYLOAD_BYTES_MAX = 2_000_000

_HEAD, _TAIL = b'{"$coded":"', b'"}'
ADVICE = "give App(…, codec=…) or Client(…, codec=…) the Codec that it was written with"
CODED = f"it was written with a codec, and none is set here, or one that cannot decode it; {ADVICE}"


class Codec:
    """Encrypts or compresses what is stored: arguments, results, errors, messages, events.

    Both functions take and give bytes, and run on the event loop, so neither may wait for anything. ``decode`` must
    read whatever was ever encoded (with older keys, too), and raise for everything else. Without ``encode`` values are
    stored as they are: for a fleet in which not every process can decode yet.

    >>> import zlib
    >>> codec = Codec(encode=zlib.compress, decode=zlib.decompress)   # or fernet.encrypt, fernet.decrypt
    """

    __slots__ = ("_decode", "_encode")

    def __init__(self, *, encode: Callable[[bytes], bytes] | None = None, decode: Callable[[bytes], bytes]) -> None:
        self._encode = encode
        self._decode = decode

    def encode(self, data: bytes, where: str = "value") -> bytes:
        """The stored form of a value's JSON. Raises ``Unserializable`` if the codec fails."""
        if isinstance(data, Sealed):
            return data.stored
        if self._encode is None or is_coded(data):  # coded: it could not be decoded here, and is passed on as it came
            return data
        try:
            return _HEAD + b64encode(self._encode(data)) + _TAIL
        except Exception as error:
            problem = f"the codec could not encode {len(data):,} bytes ({type(error).__name__}); see Codec(encode=…)"
            raise Unserializable(f"{where}: {problem}", where) from error

    def decode(self, stored: bytes) -> bytes:
        """The JSON of a value from its stored form, coded or not. Raises ``Unserializable`` if the codec fails."""
        if not is_coded(stored):
            return stored
        try:
            data = bytes(self._decode(b64decode(stored[len(_HEAD) : -len(_TAIL)], validate=True)))
            msgspec.json.decode(data.decode(), type=msgspec.Raw)  # a wrong key may give anything
        except Exception as error:
            raise Unserializable(
                f"the codec could not decode {len(stored):,} bytes ({type(error).__name__})"
            ) from error
        return data


class Sealed(bytes):
    """A value's JSON that has its stored form with it: it was encoded, and measured, at the call that made it."""

    stored: bytes


def seal(data: bytes, where: str, codec: Codec | None) -> bytes:
    """Encode a value now, where its name is known, so that what cannot be stored is refused before it is written."""
    if codec is None:
        return data
    sealed = Sealed(data)
    sealed.stored = sized(codec.encode(data, where), where)
    return sealed


def sized(data: bytes, where: str) -> bytes:
    """The same data, or ``Unserializable`` naming ``where`` if it is more than can be stored."""
    if len(data) > PAYLOAD_BYTES_MAX:
        raise Unserializable(
            f"{where}: {len(data):,} bytes of JSON, more than the {PAYLOAD_BYTES_MAX:,} that can be stored; "
            "store the data elsewhere (a file, an object store) and pass a reference to it.",
            where,
        )
    return data


def is_coded(data: bytes) -> bool:
    """Whether stored data is coded (or, of what a store gave: could not be decoded)."""
    return data.startswith(_HEAD)


def why_coded(what: str, data: bytes, codec: Codec | None) -> str:
    """Why a value is still coded here, and what to do. Tells nothing of the value."""
    why = "no codec is set here"
    if codec is not None:
        why = "the one that is set here cannot decode it"
        try:
            codec.decode(data)
        except Unserializable as error:
            why += f" ({type(error.__cause__).__name__})"
    return f"{what} was written with a codec, and {why}; {ADVICE}"

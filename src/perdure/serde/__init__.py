"""Serde: values, calls and failures to bytes and back. msgspec is its only dependency.

``Shape`` and ``ArgsShape`` store values and arguments, ``fingerprint`` names calls, ``encode_failure`` and its kin
store exceptions, ``show`` and its kin write bounded text for people, a ``Codec`` encrypts or compresses.
"""

from perdure.serde.codec import PAYLOAD_BYTES_MAX, Codec, is_coded
from perdure.serde.failures import Failure, decode_failure, describe_failure, encode_failure
from perdure.serde.fingerprint import fingerprint, fingerprint_data
from perdure.serde.values import (
    ArgsShape,
    Opaque,
    Secret,
    Shape,
    show,
    show_call,
    show_stored,
)

__all__ = [
    "PAYLOAD_BYTES_MAX",
    "ArgsShape",
    "Codec",
    "Failure",
    "Opaque",
    "Secret",
    "Shape",
    "decode_failure",
    "describe_failure",
    "encode_failure",
    "fingerprint",
    "fingerprint_data",
    "is_coded",
    "show",
    "show_call",
    "show_stored",
]

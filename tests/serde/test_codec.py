"""Codecs: the stored form, what is refused, and that no error tells anything of a value."""

from __future__ import annotations

import zlib
from typing import Any

import pytest

from perdure.errors import Unserializable
from perdure.serde import ArgsShape, Codec, Shape, decode_failure, describe_failure
from perdure.serde.codec import PAYLOAD_BYTES_MAX, is_coded, seal, why_coded


def xor(key: int) -> Codec:
    """A cipher for tests: what it gives is no UTF-8, and a wrong key goes unnoticed by it."""

    def turn(data: bytes) -> bytes:
        return bytes(byte ^ key for byte in data)

    return Codec(encode=turn, decode=turn)


def fails(data: bytes) -> bytes:
    raise ValueError(f"cannot: {data!r}")


def test_the_stored_form_is_json_and_decodes() -> None:
    codec = xor(0xA5)
    stored = codec.encode(b'{"a":1}')
    assert stored == b'{"$coded":"3ofEh5+U2A=="}'
    assert Shape.of(Any).decode(codec.decode(stored)) == {"a": 1}
    assert is_coded(stored)
    assert codec.decode(b'{"a":1}') == b'{"a":1}', "rows from before the codec stay readable"


def test_no_value_of_a_user_is_taken_for_a_coded_one() -> None:
    value = {"$coded": "3ofEh5+U2A=="}
    data = Shape.of(Any).encode(value)
    assert not is_coded(data)
    assert Shape.of(Any).decode(xor(1).decode(xor(1).encode(data))) == value


def test_sealed_data_is_plain_and_is_encoded_once() -> None:
    calls: list[bytes] = []

    def encode(data: bytes) -> bytes:
        calls.append(data)
        return data[::-1]

    codec = Codec(encode=encode, decode=lambda data: data[::-1])
    sealed = seal(b"[1]", "args", codec)
    assert sealed == b"[1]"
    assert codec.encode(sealed) == codec.encode(sealed) == b'{"$coded":"XTFb"}'
    assert calls == [b"[1]"]
    plain = b"[1]"
    assert seal(plain, "args", None) is plain


def test_without_encode_values_are_stored_as_they_are_and_coded_ones_are_read() -> None:
    reads = Codec(decode=lambda data: data[::-1])
    assert reads.encode(b"[1]") == reads.encode(seal(b"[1]", "args", reads)) == b"[1]"
    assert reads.decode(b'{"$coded":"XTFb"}') == b"[1]"


def test_what_could_not_be_decoded_is_not_coded_twice() -> None:
    stored = xor(1).encode(b"5")
    assert xor(2).encode(stored) == stored


def test_the_limit_is_that_of_the_stored_form() -> None:
    data = Shape.of(Any).encode("x" * 1_600_000)
    with pytest.raises(Unserializable, match=r"result of charge: 2,133,349 bytes of JSON, more than the") as caught:
        seal(data, "result of charge", xor(1))
    assert caught.value.path == "result of charge"
    packs = Codec(encode=zlib.compress, decode=zlib.decompress)
    assert len(packs.encode(seal(data, "v", packs))) < PAYLOAD_BYTES_MAX


@pytest.mark.parametrize("stored", [b'{"$coded":"', b'{"$coded":"!!"}', b'{"$coded":"aGk="}'])
def test_what_a_codec_makes_of_it_must_be_json(stored: bytes) -> None:
    with pytest.raises(Unserializable, match="the codec could not decode"):
        Codec(encode=bytes, decode=bytes).decode(stored)


def test_a_wrong_key_is_noticed_and_nothing_of_the_value_is_told() -> None:
    stored = xor(0xA5).encode(b'["hunter2"]')
    with pytest.raises(Unserializable):
        xor(0x5A).decode(stored)
    broken = Codec(encode=fails, decode=fails)
    for attempt in (lambda: broken.encode(b'["hunter2"]', "args"), lambda: broken.decode(stored)):
        with pytest.raises(Unserializable, match="ValueError") as caught:
            attempt()
        assert "hunter2" not in str(caught.value)
    assert why_coded("its input", stored, broken) == (
        "its input was written with a codec, and the one that is set here cannot decode it (ValueError); "
        "give App(…, codec=…) or Client(…, codec=…) the Codec that it was written with"
    )
    assert "no codec is set here; give App" in why_coded("its input", stored, None)


def test_who_has_no_codec_is_told_what_to_do() -> None:
    stored = xor(0xA5).encode(b'["hunter2"]')
    for decode in (
        Shape.of(list[str]).decode,
        Shape.of(Any).decode,
        ArgsShape.of(fails).decode,
        decode_failure,
        describe_failure,
    ):
        with pytest.raises(Unserializable, match=r"written with a codec, .*; give App\(…, codec=…\)"):
            decode(stored)

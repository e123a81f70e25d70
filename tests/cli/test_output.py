"""What is printed: redaction, cleaning, times, glyphs, formats."""

from __future__ import annotations

import io
import sys

import pytest

from perdure.cli import output
from perdure.cli.output import clean, glyphs, plain, redacted, shortened, table, took


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("postgresql://me:secret@host/db", "postgresql://me:********@host/db"),
        ("at postgres://a:b/c@d?e#f%@h:5/d and so on", "at postgres://a:********@h:5/d and so on"),
        ("at postgres://a:b%40c@h:5/d?x=1.", "at postgres://a:********@h:5/d?x=1."),
        ("host=h password=secret user=u", "host=h password=******** user=u"),
        ("postgresql://h/d?user=u&password=secret&x=1", "postgresql://h/d?user=u&password=********&x=1"),
        ("sqlite:////tmp/x.db at 12:30 by me@home", "sqlite:////tmp/x.db at 12:30 by me@home"),
    ],
)
def test_passwords_are_blotted_out(text: str, shown: str) -> None:
    assert redacted(text) == shown


def test_control_characters_cannot_steer_a_terminal() -> None:
    assert clean("a\x1b[31mb\nc\x9bd é…") == "a\\x1b[31mb\\nc\\x9bd é…"


@pytest.mark.parametrize(
    ("us", "text"),
    [
        (-5, "0 ms"),
        (0, "0 ms"),
        (12_345, "12 ms"),
        (1_500_000, "1.50 s"),
        (45_600_000, "45.6 s"),
        (125_000_000, "2 m 5 s"),
        (3 * 3600_000_000 + 120_000_000, "3 h 2 m"),
        (3 * 86_400_000_000 + 7_200_000_000, "3 d 2 h"),
    ],
)
def test_durations_are_told_in_two_figures(us: int, text: str) -> None:
    assert took(us) == text


def test_stored_values_are_shown_as_they_stand_without_secrets() -> None:
    assert plain(b'{"a":[1,null]}') == {"a": [1, None]}
    assert plain(b'{"card":{"$secret":"4242"}}') == {"card": "********"}
    assert plain(b"\x01\xff") == "<2 bytes>"
    assert plain(None) is None


def test_glyphs_fall_back_to_ascii(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(io.BytesIO(), encoding="ascii"))
    assert "".join(glyphs()).isascii()
    assert shortened("abcdef", 4) == "abc~"
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(io.BytesIO(), encoding="utf-8"))
    assert shortened("abcdef", 4) == "abc…"


def test_a_table_is_aligned_and_its_last_column_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(output, "width", lambda: 60)
    lines = [output.click.unstyle(line) for line in table(("id", "what"), [("a", "x" * 100), ("bcd", "y")], "none")]
    assert lines[0] == "ID   WHAT"
    assert lines[1].startswith("a    xxx")
    assert len(lines[1]) == 60
    assert lines[2] == "bcd  y"
    assert table(("id",), [], "none here") == ["none here"]

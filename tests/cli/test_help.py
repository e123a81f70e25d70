"""What is offered is documented, and what is documented is offered."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from perdure.cli.exits import MEANINGS
from perdure.cli.main import cli
from tests.cli.conftest import Cli

PAGE = Path(__file__).resolve().parents[2] / "docs" / "reference" / "cli.md"


def verbs(command: click.Command, path: str = "") -> Iterator[tuple[str, click.Command]]:
    if isinstance(command, click.Group):
        for name, sub in command.commands.items():
            yield from verbs(sub, f"{path} {name}".strip())
    else:
        yield path, command


def test_every_verb_takes_the_common_options() -> None:
    for path, command in verbs(cli):
        names = {parameter.name for parameter in command.params}
        assert path == "demo" or names >= {"database", "app", "output"}, path


def test_every_verb_and_option_is_on_the_page() -> None:
    page = PAGE.read_text(encoding="utf-8")
    documented = set(re.findall(r"^### `perdure ([a-z -]+?)(?: [A-Z\[-].*)?`$", page, re.MULTILINE))
    assert documented == {path for path, _ in verbs(cli)}
    for path, command in verbs(cli):
        section = page.split(f"### `perdure {path}", 1)[1].split("\n### ", 1)[0]
        for parameter in command.params:
            if isinstance(parameter, click.Option) and parameter.name not in ("database", "app", "output"):
                assert f"`{parameter.opts[-1]}" in section, (path, parameter.opts)


def test_exit_codes_are_in_the_help_and_on_the_page(perdure: Cli) -> None:
    text = perdure("--help").stdout
    page = PAGE.read_text(encoding="utf-8")
    for code, meaning in MEANINGS.items():
        assert f"{code.value:<4} {meaning}" in text
        assert f"| {code.value} | {meaning} |" in page


def test_version_and_usage(perdure: Cli) -> None:
    assert perdure("--version").stdout.startswith("perdure, version ")
    perdure("workflw", code=2)
    perdure("workflow", "list", "--output", "xml", code=2)
    assert "Usage: perdure workflow" in perdure("workflow", "--help").stdout


@pytest.mark.parametrize("module", ["perdure", "perdure.cli"])
def test_it_is_a_module_too(module: str) -> None:
    said = subprocess.run([sys.executable, "-m", module, "--version"], capture_output=True, text=True, check=True)
    assert said.stdout.startswith("perdure, version ")

"""``perdure check MODULE:APP``: what in the workflow bodies would not be the same on replay, with the fix."""

from __future__ import annotations

import dataclasses
import os
from typing import Any

import click

from perdure.cli.exits import Code
from perdure.cli.output import emit_many, note
from perdure.cli.run import home_of, load_app
from perdure.cli.target import Given, common
from perdure.definitions import Registry
from perdure.lint import Finding, read_workflow


@click.command("check")
@common
@click.argument("target", metavar="MODULE:APP")
def check(given: Given, target: str) -> None:
    """Read the workflow bodies, and what processes run, for what a replay would see differently.

    The clock, randomness, I/O, threads, the order of sets, globals, cleanup: each with the line, and what to write
    instead. Nothing is run but the import. A line that ends with "# perdure: ignore" (or ignore[clock]) is left alone.
    Exits with 1 if anything is found.
    """
    registry: Registry = home_of(load_app(target)).definitions()
    found: set[Finding] = set()
    for definition in registry.workflows.values():
        try:
            found.update(read_workflow(definition))
        except (OSError, SyntaxError) as error:
            note(f"workflow {definition.name} cannot be read: {error}")
    findings = sorted(found)
    emit_many(given.output, "findings", [_fields(one) for one in findings], _lines(findings, registry), id="path")
    if findings:
        click.get_current_context().exit(Code.NO)


def _fields(finding: Finding) -> dict[str, Any]:
    return dataclasses.asdict(finding)


def _lines(findings: list[Finding], registry: Registry) -> list[str]:
    count = len(registry.workflows)
    bodies = f"{count} workflow{'' if count == 1 else 's'}"
    if not findings:
        return [f"{bodies} read, nothing found"]
    lines: list[str] = []
    for one in findings:
        shown = dataclasses.replace(one, path=os.path.relpath(one.path))
        lines += [str(shown), f"    fix: {one.fix}"]
    return [*lines, f"{bodies} read, {len(findings)} finding{'' if len(findings) == 1 else 's'}"]

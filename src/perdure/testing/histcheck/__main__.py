"""``python -m perdure.testing.histcheck AUDIT LEDGER HISTORY FAULTS``: judge what happened.

AUDIT is a file of lines or the URL of an audited database; ``-`` stands for a stream that there is none of. Exit
status: 0 if all invariants hold, 1 if one is violated, 2 for wrong arguments.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from pathlib import Path

import msgspec

from perdure.errors import PerdureError
from perdure.testing.histcheck import Evidence, check, read_audit, read_lines


def main(arguments: list[str] | None = None) -> int:
    """Run the command; its exit status."""
    parser = argparse.ArgumentParser(prog="python -m perdure.testing.histcheck", description=__doc__)
    for name in ("audit", "ledger", "history", "faults"):
        parser.add_argument(name, nargs=None if name == "audit" else "?", default="-")
    parser.add_argument("--app", help="judge this app only")
    parser.add_argument("--schema", default="perdure", help="the schema of the tables, on Postgres")
    parser.add_argument("--save", help="write the audit's lines to this file, to judge them again later")
    given = parser.parse_args(arguments)
    try:
        audit = _audit(given.audit, given.schema)
        evidence = Evidence(audit, *(_lines(getattr(given, name)) for name in ("ledger", "history", "faults")),
                            app=given.app)  # fmt: skip
    except (PerdureError, ValueError, OSError) as error:
        print(error, file=sys.stderr)  # noqa: T201 - a command
        return 2
    if given.save:
        Path(given.save).write_bytes(b"".join(msgspec.json.encode(line) + b"\n" for line in audit))
    verdict = check(evidence)
    print(verdict)  # noqa: T201 - a command
    return 0 if verdict.good else 1


def _audit(given: str, schema: str) -> list[dict[str, object]]:
    if Path(given).is_file() and not given.endswith(".db"):
        return read_lines(given)
    return asyncio.run(read_audit(given, schema=schema))


def _lines(given: str) -> list[dict[str, object]]:
    if given == "-":
        return []
    if not Path(given).is_file():
        raise ValueError(f"no file {given!r}; write - for a stream that there is none of")
    return read_lines(given)


if __name__ == "__main__":
    sys.exit(main())

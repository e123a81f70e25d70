"""Check the floors: run import-linter with the contracts of pyproject.toml, and say one line when they hold.

A contract names modules that may not exist yet (a floor still to be built); import-linter calls that an error. Here
such names are left out and shown, so that the contracts can be written down whole from the first day. The layers have
import-linter's own word for it: parentheses.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import sys
import tempfile
import tomllib
from pathlib import Path
from typing import Any

from importlinter.cli import EXIT_STATUS_SUCCESS, lint_imports

ROOT = Path(__file__).resolve().parent.parent
NAMES = ("source_modules", "forbidden_modules", "modules")


def exists(module: str) -> bool:
    """Whether ``perdure.x.y`` is there as a file or package; what is not ours is taken to be."""
    if module.partition(".")[0] != "perdure":
        return True
    path = ROOT / "src" / Path(*module.split("."))
    return path.with_suffix(".py").is_file() or (path / "__init__.py").is_file()


def settle(contract: dict[str, Any], missing: set[str]) -> dict[str, Any] | None:
    """The contract without the modules that do not exist; None if nothing is left to check."""
    settled = dict(contract)
    for key in NAMES:
        if key in contract:
            settled[key] = [name for name in contract[key] if exists(name)]
            missing.update(name for name in contract[key] if not exists(name))
            if len(settled[key]) < (2 if key == "modules" else 1):
                return None
    return settled


def main() -> int:
    """Exit status 0 if every contract is kept; otherwise import-linter's report on standard output."""
    config = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]
    missing: set[str] = set()
    contracts = [kept for contract in config["contracts"] if (kept := settle(contract, missing))]
    lines = ["[importlinter]"]
    lines += [f"{key} = {value}" for key, value in config.items() if key != "contracts"]
    for number, contract in enumerate(contracts):
        lines.append(f"[importlinter:contract:{number}]")
        for key, value in contract.items():
            text = "\n    " + "\n    ".join(value) if isinstance(value, list) else value
            lines.append(f"{key} = {text}")
    os.chdir(ROOT)
    sys.path.insert(0, str(ROOT / "src"))
    said = io.StringIO()
    with tempfile.NamedTemporaryFile("w", suffix=".ini") as file:
        file.write("\n".join(lines))
        file.flush()
        with contextlib.redirect_stdout(said):
            status = lint_imports(config_filename=file.name, no_cache=True, is_debug_mode=False)
    if status != EXIT_STATUS_SUCCESS:
        print(said.getvalue())
        return 1
    print(
        f"floors: {len(contracts)} contracts kept"
        + (f"; not built yet: {json.dumps(sorted(missing))}" if missing else "")
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())

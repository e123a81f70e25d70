"""House rules that no linter knows: sizes, heads of files, no knots, no waiting in tests, words that are not ours."""

from __future__ import annotations

import ast
import gc
import re
import subprocess
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FILE_LINES_MAX = 600
FUNCTION_LINES_MAX = 70
CODE = ("src", "tests", "tools", "bench", "chaos", "examples")

# Files that may use TYPE_CHECKING, each with its reason. Imports point down: a knot means a module on the wrong floor.
TYPE_CHECKING_ALLOWED: dict[str, str] = {
    "src/perdure/__init__.py": "names are loaded when first used; the type checkers need to see them",
    "src/perdure/sync/__init__.py": "produced from perdure/__init__.py",
    "src/perdure/api/keys.py": "type parameters with defaults: in typing only since 3.13; names no module of ours",
    "src/perdure/api/messages.py": "the same",
    "src/perdure/sync/messages.py": "produced from perdure/api/messages.py",
    "src/perdure/runtime/face.py": "Engine, a type here: loaded where an app opens",
    "src/perdure/runtime/aface.py": "the same",
    "src/perdure/runtime/sface.py": "the same",
    "src/perdure/api/client.py": "ProcessHandle, a type here: loaded where an app opens",
    "src/perdure/sync/client.py": "produced from perdure/api/client.py",
    "src/perdure/api/router.py": "Declared, a type here: loaded by @app.process",
    "src/perdure/sync/router.py": "produced from perdure/api/router.py",
    "src/perdure/definitions.py": "Declaration, a type here: loaded by @app.process",
}

CALLED_BY_OTHERS = {"pytest_configure", "pytest_itemcollected"}  # hooks of pytest

# Written so that this file does not contain them itself.
FORBIDDEN = tuple(
    "".join(parts) for parts in (("py", "pi.org"), ("files.python", "hosted"), ("/ro", "ot/"), ("/wo", "rk/"))
)


@cache
def tracked() -> tuple[str, ...]:
    """What git tracks or would add; in an unpacked archive, every file but hidden ones."""
    listing = ["git", "-C", str(ROOT), "ls-files", "--cached", "--others", "--exclude-standard"]
    try:
        names = subprocess.run(listing, check=True, capture_output=True, text=True).stdout.splitlines()
    except (OSError, subprocess.CalledProcessError):
        names = [str(path.relative_to(ROOT)) for path in ROOT.rglob("*")]
        names = [name for name in names if not any(part.startswith(".") for part in Path(name).parts)]
    return tuple(sorted(name for name in set(names) if (ROOT / name).is_file()))


def python(*folders: str) -> list[str]:
    return [name for name in tracked() if name.endswith(".py") and name.split("/")[0] in folders]


@cache
def text(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


@cache
def tree(name: str) -> ast.Module:
    return ast.parse(text(name), filename=name)


def functions(name: str) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    return (node for node in ast.walk(tree(name)) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))


@pytest.fixture(autouse=True, scope="module")
def no_collector() -> Iterator[None]:
    """The trees stay, millions of nodes: it would look at them again and again, for longer than they take to make."""
    gc.disable()
    yield
    gc.enable()


def test_no_file_is_too_long() -> None:
    lengths = {name: len(text(name).splitlines()) for name in python(*CODE)}
    long = [f"{name}: {n} lines, of {FILE_LINES_MAX}" for name, n in lengths.items() if n > FILE_LINES_MAX]
    assert not long, "one noun, one file; split:\n" + "\n".join(long)


def test_no_function_is_too_long() -> None:
    long: list[str] = []
    for name in python(*CODE):
        lines = text(name).splitlines()
        for function in functions(name):
            length = (function.end_lineno or function.lineno) - function.lineno + 1
            if length > FUNCTION_LINES_MAX and not re.search(r"# long: \S", lines[function.lineno - 1]):
                long.append(f"{name}:{function.lineno} {function.name}: {length} lines, of {FUNCTION_LINES_MAX}")
    assert not long, "split, or give the reason on the line of the def (`# long: reason`):\n" + "\n".join(long)


def test_every_file_begins_with_what_it_is() -> None:
    silent = [name for name in python("src") if not ast.get_docstring(tree(name))]
    assert not silent, "a source file begins with a docstring, what it is and what it promises:\n" + "\n".join(silent)


def test_no_type_checking_knots() -> None:
    knots = [
        name
        for name in python("src")
        if re.search(r"^[^#\n]*\bTYPE_CHECKING\b", text(name), re.MULTILINE) and name not in TYPE_CHECKING_ALLOWED
    ]
    assert not knots, "move the module to the floor it belongs on, or add it to the list with a reason:\n" + "\n".join(
        knots
    )


def test_an_archive_has_all_that_its_tests_import() -> None:
    packed = tomllib.loads(text("pyproject.toml"))["tool"]["hatch"]["build"]["targets"].get("sdist", {}).get("include")
    needed = {
        folder for folder in CODE for name in python("tests") if re.search(rf"(from|import) {folder}\b", text(name))
    }
    assert {"chaos", "examples", "tests"} <= needed, "the imports were not found"
    assert packed is None or {f"/{folder}" for folder in needed} <= set(packed)


def durable(function: ast.AST) -> bool:
    """Whether it is decorated as a workflow: what sleeps in there is a durable timer on the test's clock."""
    decorators = getattr(function, "decorator_list", [])
    return any(re.search(r"\.workflow\b", ast.unparse(decorator)) for decorator in decorators)


def waits(node: ast.AST) -> Iterator[int]:
    """Lines that sleep for a constant time other than 0, outside workflows."""
    for child in ast.iter_child_nodes(node):
        if not durable(child):
            yield from waits(child)
    if isinstance(node, ast.Call) and re.fullmatch(r"(time|asyncio|anyio)\.sleep", ast.unparse(node.func)):
        yield from (node.lineno for given in node.args[:1] if isinstance(given, ast.Constant) and given.value)


def test_tests_do_not_wait() -> None:
    found: list[str] = []
    for name in python("tests"):
        if re.search(r"^# waits: \S", text(name), re.MULTILINE):
            continue  # the file as a whole has a reason: a clock of its own, or helpers that start processes
        lines = text(name).splitlines()
        found += [f"{name}:{at}" for at in waits(tree(name)) if not re.search(r"# waits: \S", lines[at - 1])]
    assert not found, "pass the clock or wait for the event; or say why not (`# waits: reason`):\n" + "\n".join(found)


def defined(name: str) -> Iterator[tuple[int, str]]:
    """What a module defines at its top, but for what a decorator takes up and what Python itself looks for."""
    for node in tree(name).body:
        match node:
            case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef() if not node.decorator_list:
                yield node.lineno, node.name
            case ast.Assign(targets=[ast.Name(id=named)]) | ast.AnnAssign(target=ast.Name(id=named)):
                if not named.startswith("__"):
                    yield node.lineno, named
            case _:
                pass


def test_nothing_is_defined_that_nobody_uses() -> None:
    used = set(CALLED_BY_OTHERS)  # names, wherever they are: what shares its name with something else is missed
    for name in python(*CODE):
        for node in ast.walk(tree(name)):
            match node:
                case ast.Attribute(attr=named) | ast.Name(id=named, ctx=ast.Load()) | ast.alias(name=named):
                    used.add(named)
                case _:
                    pass
    dead = [f"{name}:{at} {named}" for name in python("src") for at, named in defined(name) if named not in used]
    assert not dead, "nobody uses:\n" + "\n".join(dead)


@pytest.mark.parametrize("word", FORBIDDEN)
def test_nothing_speaks_of_one_machine(word: str) -> None:
    found: list[str] = []
    for name in tracked():
        try:
            lines = text(name).splitlines()
        except UnicodeDecodeError:
            continue
        found += [f"{name}:{n}" for n, line in enumerate(lines, 1) if word in line]
    assert not found, f"{word!r} has no place in the project:\n" + "\n".join(found)

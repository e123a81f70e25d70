"""Produce perdure.sync from the async face: ``src/perdure/api/*.py`` to ``src/perdure/sync/*.py``.

    python tools/async_to_sync.py            write the files
    python tools/async_to_sync.py --check    write nothing; a diff and exit status 1 where they differ

What it does, token by token, so that comments and layout stay:

- ``async def``, ``async with``, ``async for`` lose their ``async``; ``await x`` is ``x``; names of the async protocols
  and types get their sync names (``NAMES``); ``Call[R]``, ``Awaitable[R]`` and ``Coroutine[A, B, R]`` are ``R``;
- ``perdure.api`` is ``perdure.sync``; the bridge ``perdure.runtime.aface`` is ``perdure.runtime.sface``;
- in docstrings the same, but only in code spans and in indented blocks;
- imports that nothing needs any more go, and the file is formatted (both by ruff).

What the author of the async source can say, in comments:

- a block from a line ``# async-only`` to a line ``# end`` is left out; so is one line that ends in ``# async-only``;
- a line ``# sync-only: code`` becomes ``code``, at the comment's indentation;
- a line that ends in ``# as-is`` is not translated (``Callable[P, Coroutine[Any, Any, R]]`` for an async step, say).

A module whose code the rules leave as it is, and that imports only such modules from ``perdure.api``, has no colour. It
is not copied: both faces import it from ``perdure.api``, so that ``perdure.Topic is perdure.sync.Topic``. The package's
``__init__`` is made from ``perdure/api/__init__.py`` if that one has an ``__all__``, else from ``perdure/__init__.py``.
"""

from __future__ import annotations

import ast
import difflib
import io
import re
import subprocess
import sys
import tokenize
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from keyword import iskeyword
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
HEAD = "# Produced from perdure/{source} by tools/async_to_sync.py; do not edit."
NAMES = {
    "AbstractAsyncContextManager": "AbstractContextManager",
    "AsyncContextManager": "ContextManager",
    "AsyncExitStack": "ExitStack",
    "AsyncIterable": "Iterable",
    "AsyncIterator": "Iterator",
    "StopAsyncIteration": "StopIteration",
    "__aenter__": "__enter__",
    "__aexit__": "__exit__",
    "__aiter__": "__iter__",
    "__anext__": "__next__",
    "aclosing": "closing",
    "aface": "sface",
    "aiter": "iter",
    "anext": "next",
    "asynccontextmanager": "contextmanager",
}
WRAPPERS = {"Awaitable": 0, "Call": 0, "Coroutine": 2}  # how many arguments stand before the one that counts
MODULE = re.compile(r"perdure\.(api|runtime\.aface)(\.\w+)*")


class Unclear(Exception):
    """The source cannot be translated as it stands; the message says where and what to do."""


@dataclass(frozen=True)
class Edit:
    """Replace what stands between two places of the source."""

    start: tuple[int, int]
    end: tuple[int, int]
    text: str = ""


# -- the comments that speak to this tool


def select(source: str) -> str:
    """The source without what is async-only, and with what is sync-only."""
    out: list[str] = []
    opened = 0
    for number, line in enumerate(source.splitlines(keepends=True), 1):
        word = line.strip()
        if word == "# async-only":
            if opened:
                raise Unclear(f"line {number}: async-only inside that of line {opened}; write `# end`")
            opened = number
        elif word == "# end":
            if not opened:
                raise Unclear(f"line {number}: `# end` without `# async-only` before it")
            opened = 0
        elif opened or word.endswith("  # async-only"):
            continue
        elif word.startswith("# sync-only:"):
            out.append(re.sub(r"# sync-only: ?", "", line, count=1))
        else:
            out.append(line)
    if opened:
        raise Unclear(f"line {opened}: `# async-only` is never closed; write `# end` after the block")
    return "".join(out)


# -- the tokens


def translate(source: str, shared: Collection[str] = (), *, docs: bool = True) -> str:
    """One module of the async face as one of the sync face. ``shared``: modules without colour, left as they are."""
    source = select(source)
    tokens = [t for t in tokenize.generate_tokens(io.StringIO(source).readline) if t.type not in _LAYOUT]
    kept = {t.start[0] for t in tokens if t.type == tokenize.COMMENT and t.string == "# as-is"}
    code = [t for t in tokens if t.type != tokenize.COMMENT]
    edits = [edit for edit in _edits(code, shared) if edit.start[0] not in kept]
    if docs:
        edits += [edit for edit in _docstrings(source, code) if edit.start[0] not in kept]
    return _apply(source, edits)


_LAYOUT = {tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT}


def _edits(code: list[tokenize.TokenInfo], shared: Collection[str]) -> Iterator[Edit]:
    for i, token in enumerate(code[:-1]):
        follower = code[i + 1]
        word = token.string
        if token.type == tokenize.STRING and MODULE.fullmatch(word[1:-1]):
            yield Edit(token.start, token.end, word[0] + _module(word[1:-1], shared) + word[0])
        elif word == "(" and follower.string == "await" and (closing := _needless(code, i)):
            yield Edit(token.start, token.end)
            yield Edit(closing.start, closing.end)
        elif token.type != tokenize.NAME:
            continue
        elif word == "await" or (word == "async" and follower.string in {"def", "with", "for"}):
            yield Edit(token.start, follower.start)
        elif word in WRAPPERS and follower.string == "[":
            yield from _unwrap(code, i, WRAPPERS[word])
        elif word == "perdure" and follower.string == "." and (i == 0 or code[i - 1].string != "."):
            yield from _import(code, i, shared)
        elif word in NAMES:
            yield Edit(token.start, token.end, NAMES[word])


def _needless(code: list[tokenize.TokenInfo], i: int) -> tokenize.TokenInfo | None:
    """The bracket that closes ``(await x.y(z))`` if without the ``await`` neither bracket is needed."""
    if i and (
        code[i - 1].string in {")", "]"} or (code[i - 1].type == tokenize.NAME and not iskeyword(code[i - 1].string))
    ):
        return None  # the bracket of a call
    depth = 0
    for token in code[i:]:
        depth += (token.string in {"(", "[", "{"}) - (token.string in {")", "]", "}"})
        if depth == 0:
            return token
        plain = token.string in {"await", ".", "(", ")", "[", "]", "{", "}"} or not iskeyword(token.string)
        if depth == 1 and not (plain and (token.type == tokenize.NAME or token.string in {".", "(", ")", "]", "}"})):
            return None
    return None


def _unwrap(code: list[tokenize.TokenInfo], i: int, skip: int) -> Iterator[Edit]:
    """``Name[A, B, R]`` as ``R``: two edits, so that what stands inside is translated too."""
    depth, commas = 0, [i + 1]
    for j in range(i + 1, len(code)):
        word = code[j].string
        depth += (word in {"[", "(", "{"}) - (word in {"]", ")", "}"})
        if depth == 1 and word == ",":
            commas.append(j)
        if depth == 0:
            yield Edit(code[i].start, code[commas[skip] + 1].start)
            last = commas[-1] if commas[-1] == j - 1 and len(commas) > skip + 1 else j  # a trailing comma
            yield Edit(code[last].start, code[j].end)
            return
    raise Unclear(f"line {code[i].start[0]}: {code[i].string}[ is never closed")


def _import(code: list[tokenize.TokenInfo], i: int, shared: Collection[str]) -> Iterator[Edit]:
    """``perdure.api.x`` as ``perdure.sync.x``, unless ``perdure.api.x`` has no colour."""
    j = i
    while j + 2 < len(code) and code[j + 1].string == "." and code[j + 2].type == tokenize.NAME:
        j += 2
    path = ".".join(code[k].string for k in range(i, j + 1, 2))
    if not path.startswith("perdure.api"):
        return
    if path == "perdure.api" and (bare := [n for n in _imported(code, j) if f"perdure.api.{n}" in shared]):
        raise Unclear(f"line {code[i].start[0]}: write `from perdure.api.{bare[0]} import …`, so that it can be shared")
    if path not in shared:
        yield Edit(code[i + 2].start, code[i + 2].end, "sync")


def _imported(code: list[tokenize.TokenInfo], j: int) -> list[str]:
    """The names that follow in ``from … import a, b`` (up to the line's or the bracket's end)."""
    if code[j + 1].string != "import":
        return []
    names: list[str] = []
    for token in code[j + 2 :]:
        if token.string == ")" or (token.start[0] != code[j + 1].start[0] and code[j + 2].string != "("):
            break
        if token.type == tokenize.NAME and token.string != "as":
            names.append(token.string)
    return names


def _module(path: str, shared: Collection[str]) -> str:
    if path in shared:
        return path
    return path.replace("perdure.api", "perdure.sync").replace("runtime.aface", "runtime.sface")


# -- the docstrings


def _docstrings(source: str, code: list[tokenize.TokenInfo]) -> Iterator[Edit]:
    places = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and node.body:
            first = node.body[0]
            if (
                isinstance(first, ast.Expr)
                and isinstance(first.value, ast.Constant)
                and isinstance(first.value.value, str)
            ):
                places.add((first.lineno, first.col_offset))
    for token in code:
        if token.type == tokenize.STRING and token.start in places:
            base = token.start[1]
            lines = token.string.split("\n")
            said = [_prose(line, block=n > 0 and line.startswith(" " * (base + 4))) for n, line in enumerate(lines)]
            if said != lines:
                yield Edit(token.start, token.end, "\n".join(said))


def _prose(line: str, *, block: bool) -> str:
    """A line of a docstring: translated whole in an indented block, otherwise only in its code spans."""
    if block:
        return _words(line)
    return re.sub(r"``.+?``", lambda span: _words(span.group()), line)


def _words(text: str) -> str:
    text = re.sub(r"\basync (?=def|with|for)|\bawait ", "", text)
    text = re.sub(r"\b(from|import) perdure(?= import|$)", r"\1 perdure.sync", text)
    return re.sub(r"\b\w+\b", lambda word: NAMES.get(word.group(), word.group()), text)


def _apply(source: str, edits: list[Edit]) -> str:
    lines = source.splitlines(keepends=True)
    outer: list[Edit] = []  # without those inside what another takes away
    for edit in sorted(edits, key=lambda e: (e.start, e.end)):
        if not outer or edit.start >= outer[-1].end:
            outer.append(edit)
    for edit in reversed(outer):  # from the end, so that places before it stay true
        (row, column), (last, end) = edit.start, edit.end
        lines[row - 1 : last] = [lines[row - 1][:column] + edit.text + lines[last - 1][end:]]
    return "".join(lines)


# -- the files


def shared_modules(sources: dict[str, str]) -> set[str]:
    """The modules without colour, by dotted name: found by taking all as such and dropping until nothing changes."""
    shared = {name for name in sources if not name.endswith("__init__")}
    while True:
        coloured = {name for name in shared if _coloured(name, sources[name], shared)}
        if not coloured:
            return shared
        shared -= coloured


def _coloured(name: str, source: str, shared: Collection[str]) -> bool:
    """Whether the rules change the module's code; its docstrings may speak of either face."""
    try:
        return translate(source, shared, docs=False) != source
    except (Unclear, SyntaxError, tokenize.TokenError) as error:
        raise Unclear(f"{name.replace('.', '/')}.py: {error}") from error


def polish(text: str, path: Path) -> str:
    """Without unused imports, sorted, formatted: as ruff would have it."""
    for arguments in (["check", "--fix", "--exit-zero", "--select", "F401,I001"], ["format"]):
        command = [sys.executable, "-m", "ruff", *arguments, "--quiet", "--stdin-filename", str(path), "-"]
        done = subprocess.run(command, input=text, capture_output=True, text=True, cwd=ROOT, check=False)
        if done.returncode:
            raise Unclear(f"{path}: ruff {arguments[0]} refuses what was produced:\n{done.stderr}")
        text = done.stdout
    return text


def produce(package: Path) -> dict[Path, str]:
    """Path to text of all that belongs in ``perdure/sync``; empty while there is no ``perdure/api``."""
    api = package / "api"
    sources = {
        f"perdure.api.{path.stem}": path.read_text() for path in sorted(api.glob("*.py")) if path.stem != "__init__"
    }
    if not sources:
        return {}
    shared = shared_modules(sources)
    face = next((path for path in (api / "__init__.py", package / "__init__.py") if _has_all(path)), None)
    todo = [
        (name.rpartition(".")[2], f"api/{name.rpartition('.')[2]}.py", text)
        for name, text in sources.items()
        if name not in shared
    ]
    if face is not None:
        todo.append(("__init__", str(face.relative_to(package)), face.read_text()))
    made: dict[Path, str] = {}
    for stem, source, text in todo:
        path = package / "sync" / f"{stem}.py"
        try:
            made[path] = polish(f"{HEAD.format(source=source)}\n{translate(text, shared)}", path)
            compile(made[path], str(path), "exec")
        except (Unclear, SyntaxError, tokenize.TokenError) as error:
            raise Unclear(f"perdure/{source}: {error}") from error
    return made


def _has_all(path: Path) -> bool:
    return path.is_file() and re.search(r"^__all__\b", path.read_text(), re.MULTILINE) is not None


def main(arguments: list[str], package: Path = ROOT / "src" / "perdure") -> int:
    """Write, or with ``--check`` compare."""
    try:
        made = produce(package)
    except Unclear as error:
        print(f"perdure.sync: {error}")
        return 1
    if not made:
        print("perdure.sync: nothing to produce yet (no perdure/api)")
        return 0
    there = {path: path.read_text() for path in sorted((package / "sync").glob("*.py"))}
    stale = {path for path, text in there.items() if path not in made and text.startswith(HEAD.partition("{")[0])}
    if "--check" in arguments:
        for path in sorted({*made, *stale}):
            name = str(path.relative_to(package.parent))
            old, new = (text.get(path, "").splitlines(keepends=True) for text in (there, made))
            sys.stdout.writelines(difflib.unified_diff(old, new, f"{name} (there)", f"{name} (produced)"))
        current = not stale and all(there.get(path) == text for path, text in made.items())
        print("perdure.sync: up to date" if current else "perdure.sync: not what perdure.api gives; run: make sync")
        return 0 if current else 1
    (package / "sync").mkdir(exist_ok=True)
    for path, text in made.items():
        if there.get(path) != text:
            path.write_text(text)
    for path in stale:
        path.unlink()
    print(f"perdure.sync: {len(made)} files")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

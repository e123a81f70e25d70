"""The tool that produces perdure.sync: what each of its rules does, on a snippet."""

from __future__ import annotations

import textwrap
from pathlib import Path

import pytest

from tools.async_to_sync import Unclear, main, produce, shared_modules, translate


def sync(source: str, shared: frozenset[str] = frozenset()) -> str:
    return translate(textwrap.dedent(source).lstrip("\n"), shared)


@pytest.mark.parametrize(
    ("source", "produced"),
    [
        ("async def f() -> int: return await g()", "def f() -> int: return g()"),
        ("async with a() as x, b(): ...", "with a() as x, b(): ..."),
        ("async for x in y: ...", "for x in y: ..."),
        ("z = [await f(x) async for x in y if await p(x)]", "z = [f(x) for x in y if p(x)]"),
        ("x = await  (  # why\n    f())", "x = (  # why\n    f())"),
        ("x = -await f() ** 2", "x = -f() ** 2"),
        ("x = (await f(1)).y[0]", "x = f(1).y[0]"),
        ("return_ = [(await self.f(a, *b)).y]", "return_ = [self.f(a, *b).y]"),
        ("x = (await f() or 3).y", "x = (f() or 3).y"),
        ("x = (await f() if a else b).y", "x = (f() if a else b).y"),
        ("g(await f())", "g(f())"),
        ("asyncio.run(x)  # async and await stay in comments", "asyncio.run(x)  # async and await stay in comments"),
        ("x = 'await async def'", "x = 'await async def'"),
        ("raise StopAsyncIteration", "raise StopIteration"),
        ("def f() -> AsyncIterator[int]: ...", "def f() -> Iterator[int]: ..."),
        ("Opened = AbstractAsyncContextManager[T]", "Opened = AbstractContextManager[T]"),
        ("async def __aenter__(self): ...", "def __enter__(self): ..."),
        ("async def __aexit__(self, *e): await super().__aexit__(*e)", "def __exit__(self, *e): super().__exit__(*e)"),
        ("async def __anext__(self): return await anext(self.x)", "def __next__(self): return next(self.x)"),
        ("f: Callable[P, Coroutine[Any, Any, R]]", "f: Callable[P, R]"),
        ("f: Callable[P, Call[list[R]]]", "f: Callable[P, list[R]]"),
        ("f: Coroutine[Any, Any, Call[AsyncIterator[R]]]", "f: Iterator[R]"),
        ("f: Coroutine[\n    Any,\n    Any,\n    R,\n]", "f: R"),
        ("f: Coroutine[AsyncIterator[A], Any, tuple[A, R]]", "f: tuple[A, R]"),
        ("f: Callable[P, Coroutine[Any, Any, R]]  # as-is", "f: Callable[P, Coroutine[Any, Any, R]]  # as-is"),
        ("from perdure.api.app import App", "from perdure.sync.app import App"),
        ("import perdure.api.app", "import perdure.sync.app"),
        ("from perdure.api import app", "from perdure.sync import app"),
        ("from perdure.runtime.aface import call", "from perdure.runtime.sface import call"),
        ("from perdure.runtime import aface\nasync def f(): await aface.call()",
         "from perdure.runtime import sface\ndef f(): sface.call()"),
        ("HOMES = {'App': 'perdure.api.app'}", "HOMES = {'App': 'perdure.sync.app'}"),
        ("x = 1  # async-only\ny = 2", "y = 2"),
    ],
)  # fmt: skip
def test_rules(source: str, produced: str) -> None:
    assert translate(source + "\n") == produced + "\n"


def test_blocks_for_one_face_only() -> None:
    source = """
        class A:
            # async-only
            async def a(self) -> None: ...
            # end
            # sync-only: def b(self) -> None:
            # sync-only:     return None
            c = 1
    """
    assert sync(source) == "class A:\n    def b(self) -> None:\n        return None\n    c = 1\n"


@pytest.mark.parametrize("source", ["# async-only\nx = 1\n", "# end\n", "# async-only\n# async-only\n# end\n"])
def test_blocks_must_be_closed(source: str) -> None:
    with pytest.raises(Unclear, match=r"line 1|line 2"):
        translate(source)


def test_docstrings_are_translated_in_code_only() -> None:
    source = '''
        async def f():
            """Await it: ``await f()``, or ``async with f():``. We await your async call.

            Like so:

                from perdure import App
                async with f() as g:
                    await g()
            """
    '''
    assert sync(source) == textwrap.dedent(
        '''
        def f():
            """Await it: ``f()``, or ``with f():``. We await your async call.

            Like so:

                from perdure.sync import App
                with f() as g:
                    g()
            """
        '''
    ).lstrip("\n")


def test_modules_without_colour_are_shared() -> None:
    sources = {
        "perdure.api.keys": 'class Topic:\n    """``await recv(topic)``."""\n',
        "perdure.api.more": "from perdure.api.keys import Topic\n",
        "perdure.api.app": "from perdure.api.keys import Topic\nasync def f(): ...\n",
        "perdure.api.uses": "from perdure.api.app import f\n",
    }
    shared = shared_modules(sources)
    assert shared == {"perdure.api.keys", "perdure.api.more"}
    assert translate(sources["perdure.api.app"], shared) == "from perdure.api.keys import Topic\ndef f(): ...\n"
    assert translate(sources["perdure.api.uses"], shared) == "from perdure.sync.app import f\n"
    with pytest.raises(Unclear, match=r"from perdure\.api\.keys import"):
        translate("from perdure.api import keys\n", shared)


def package(where: Path) -> Path:
    (where / "api").mkdir(parents=True)
    (where / "api" / "app.py").write_text(
        '"""The app."""\nfrom collections.abc import AsyncIterator, Coroutine, Iterator\n'
        "async def f(x: Iterator[int]) -> AsyncIterator[int]:\n    await g(  x)\n"
    )
    (where / "__init__.py").write_text('"""Face."""\nfrom perdure.api.app import f\n__all__ = ["f"]\n')
    return where


def test_files_are_formatted_and_marked(tmp_path: Path) -> None:
    made = produce(package(tmp_path))
    assert {path.name for path in made} == {"app.py", "__init__.py"}
    assert made[tmp_path / "sync" / "app.py"] == (
        "# Produced from perdure/api/app.py by tools/async_to_sync.py; do not edit.\n"
        '"""The app."""\n\nfrom collections.abc import Iterator\n\n\n'
        "def f(x: Iterator[int]) -> Iterator[int]:\n    g(x)\n"
    )
    assert "from perdure.sync.app import f" in made[tmp_path / "sync" / "__init__.py"]


def test_check_shows_the_difference(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    where = package(tmp_path)
    assert main([], where) == 0
    assert main(["--check"], where) == 0
    (where / "sync" / "app.py").write_text(
        "# Produced from perdure/api/app.py by tools/async_to_sync.py; do not edit.\nx = 1\n"
    )
    old = where / "sync" / "old.py"
    old.write_text("# Produced from perdure/api/old.py by tools/async_to_sync.py; do not edit.\n")
    capsys.readouterr()
    assert main(["--check"], where) == 1
    said = capsys.readouterr().out
    assert "-x = 1" in said
    assert "old.py" in said
    assert main([], where) == 0
    assert not old.exists()
    assert main(["--check"], where) == 0


def test_what_cannot_be_translated_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    where = package(tmp_path)
    (where / "api" / "app.py").write_text('"""App."""\n# async-only\nasync def f(): ...\n')
    assert main([], where) == 1
    assert "perdure/api/app.py: line 2: `# async-only` is never closed" in capsys.readouterr().out


def test_nothing_to_do_without_an_async_face(tmp_path: Path) -> None:
    assert main([], tmp_path) == 0
    assert main(["--check"], tmp_path) == 0

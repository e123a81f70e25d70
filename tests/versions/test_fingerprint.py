"""Fingerprints: what changes the version of an app, what does not, and the same on every Python."""

from __future__ import annotations

import ast
import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from perdure.definitions import Registry
from perdure.errors import ConfigError
from perdure.runtime.launch import code_of
from perdure.versions import fingerprint
from perdure.versions.fingerprint import NoSource, Sources, app_version, fingerprint_of

# Written down once, and never again: whoever has to change one makes every version of every app another one.
GOLDEN = {
    "plain": "39bb1429014363948e90db587c90c0f2",
    "renamed": "3963c14095f90701c8b332e3d51e7915",
    "control": "69ad78c23db8ff928f57b16a94ba19cf",
    "nested": "4b2aa0e05907831d70ffa108a1d122d0",
}
GOLDEN_VERSION = "681d801c41f8"


def module(path: Path, source: str) -> ModuleType:
    """A module with this source, imported."""
    path.write_text(source, encoding="utf-8")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    made = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = made
    spec.loader.exec_module(made)
    return made


def of(source: str) -> str:
    """The fingerprint of the last function of a source."""
    last = ast.parse(source).body[-1]
    assert isinstance(last, ast.FunctionDef | ast.AsyncFunctionDef)
    return fingerprint_of(last)


def test_the_same_on_every_python(tmp_path: Path) -> None:
    text = (Path(__file__).parent / "golden.txt").read_text(encoding="utf-8")
    code = code_of("golden", module(tmp_path / "golden_flows.py", text).app._registry, "")
    assert dict(code.fingerprints) == GOLDEN
    assert code.version == GOLDEN_VERSION


BASE = """
@app.workflow
async def order(id, n=1):
    total = n + 2
    return await charge(id, total, how=lambda x: x + 1)
"""
SAME = {
    "comment": BASE.replace("total = n + 2", "# add\n    total = n + 2  # two"),
    "layout": BASE.replace("n + 2", "(\n        n\n        + 2\n    )").replace("(id, n=1)", "(\n    id,\n    n=1,\n)"),
    "docstring": BASE.replace("    total", '    """Order."""\n    total'),
    "pass": BASE.replace("    total", "    pass; ...\n    total"),
    "annotations": BASE.replace("(id, n=1)", "(id: str, n: int = 1) -> dict[str, int]").replace(
        "total =", "total: int ="
    ),
    "declared": BASE.replace("    total", "    total: int\n    total"),
    "indented": "class Outer:\n" + BASE.replace("\n", "\n    "),
    "own name": BASE.replace("def order", "def order_2"),
    "decorator": BASE.replace("@app.workflow", '@app.schedule("0 2 * * *")\n@app.workflow(name="order", timeout=3)'),
    "helper": "async def charge(*a, **k): return 7\n" + BASE,
}
OTHER = {
    "constant": BASE.replace("n + 2", "n + 3"),
    "type of constant": BASE.replace("n + 2", "n + 2.0"),
    "operator": BASE.replace("n + 2", "n - 2"),
    "order": BASE.replace("n + 2", "2 + n"),
    "step": BASE.replace("charge(", "charge_2("),
    "argument": BASE.replace("charge(id, total", "charge(total, id"),
    "keyword": BASE.replace("how=", "why="),
    "lambda": BASE.replace("x + 1", "x + 2"),
    "default": BASE.replace("n=1", "n=2"),
    "parameter": BASE.replace("(id, n=1)", "(id, n=1, m=2)"),
    "kind of parameter": BASE.replace("(id, n=1)", "(id, *, n=1)"),
    "await": BASE.replace("await charge", "charge"),
    "colour": BASE.replace("async def", "def").replace("await ", ""),
    "statement": BASE.replace("    return", "    total += 1\n    return"),
    "decorator under ours": BASE.replace("@app.workflow", "@app.workflow\n@twice"),
    "none": BASE.replace("how=lambda x: x + 1", "how=None"),
}


def last(source: str) -> str:
    tree = ast.parse(source)
    functions = [n for n in ast.walk(tree) if isinstance(n, ast.AsyncFunctionDef | ast.FunctionDef)]
    return fingerprint_of(max(functions, key=lambda n: n.lineno))


@pytest.mark.parametrize("what", SAME)
def test_it_does_not_change_with(what: str) -> None:
    assert last(SAME[what]) == last(BASE)


def test_it_changes_with() -> None:
    prints = {what: last(source) for what, source in {"base": BASE, **OTHER}.items()}
    assert len(set(prints.values())) == len(prints), prints


def test_what_is_written_side_by_side_is_not_taken_for_another() -> None:
    """Trees that would be one text if it were only written down in a row."""
    sources = [
        "def f(): return 1",
        "def f(): return '1'",
        "def f(): return b'1'",
        "def f(): return True",
        "def f(): return",
        "def f(): return None",
        "def f(): return [a, [b]]",
        "def f(): return [[a], b]",
        "def f(): return {**a, 'b': c}",
        "def f(): return {'b': c, **a}",
        "def f(): return f'{a}b'",
        "def f(): return f'{a!r}b'",
        "def f(): return f'{a:b}'",
        "def f(): return x[1:]",
        "def f(): return x[:1]",
        "def f(*, a=1, b): ...",
        "def f(*, a, b=1): ...",
        "def f(a):\n  class C:\n    a: int\n  return C",
        "def f(a):\n  class C:\n    a: str\n  return C",
    ]
    assert len({of(source) for source in sources}) == len(sources)


def test_deep_trees_are_no_matter() -> None:
    assert of("def f(): return " + " + ".join(["x"] * 900)) != of("def f(): return " + " + ".join(["x"] * 899))


# -- an app


def test_an_apps_version_is_of_names_and_fingerprints_in_any_order() -> None:
    version = app_version({"a": "1", "b": "2"})
    assert version == app_version({"b": "2", "a": "1"})
    assert len(version) == fingerprint.DIGITS
    assert len({version, app_version({"a": "2", "b": "1"}), app_version({"a": "1"}), app_version({})}) == 4


APP = """
from functools import wraps
from perdure import App
app = App("shop")

def twice(fn):
    @wraps(fn)
    async def call(*args):
        return await fn(*args)
    return call

@app.workflow
@twice
async def order(id: str) -> str:
    return id + "{suffix}"
"""


def test_a_wrapped_function_is_read_through_its_wrapper(tmp_path: Path) -> None:
    code = [
        code_of("shop", module(tmp_path / f"wrapped_{n}.py", APP.replace("{suffix}", str(n))).app._registry, "")
        for n in (1, 1, 2)
    ]
    assert code[0] == code[1] != code[2]


def test_what_was_imported_counts_not_what_is_in_the_file_later(tmp_path: Path) -> None:
    path = tmp_path / "replaced.py"
    registry = module(path, APP.replace("{suffix}", "1")).app._registry
    version = code_of("shop", registry, "").version
    path.write_text(APP.replace("{suffix}", "2"))
    assert code_of("shop", registry, "").version == version


def test_lambdas_of_one_line_are_told_apart_by_their_parameters_or_refused() -> None:
    one, two = (lambda x: x + 1), (lambda y: y + 1)
    same: list[Callable[[int], int]] = [lambda x: x, lambda x: -x]
    sources = Sources()
    assert sources.fingerprint(one) != sources.fingerprint(two)
    with pytest.raises(NoSource, match=r"2 functions named <lambda>"):
        sources.fingerprint(same[0])


# -- no source


def without_source() -> Registry:
    space: dict[str, Any] = {}
    exec('from perdure import App\napp = App("shop")\n@app.workflow\nasync def order() -> None: ...', space)
    registry: Registry = space["app"]._registry
    return registry


def test_without_source_the_version_must_be_given() -> None:
    with pytest.raises(ConfigError, match=r"'order' has no source.*PERDURE_VERSION=… or App\(version=…\)"):
        code_of("shop", without_source(), "")


def test_a_given_version_needs_no_source() -> None:
    code = code_of("shop", without_source(), "2026-11-25")
    assert (code.version, dict(code.fingerprints)) == ("2026-11-25", {"order": ""})


def test_a_file_that_was_replaced_by_something_else_is_no_source(tmp_path: Path) -> None:
    path = tmp_path / "emptied.py"
    registry = module(path, APP).app._registry
    path.write_text("\n" * 40)
    with pytest.raises(ConfigError, match="no function named order"):
        code_of("shop", registry, "")
    path.write_text("this is no Python")
    with pytest.raises(ConfigError, match="is no Python"):
        code_of("shop", registry, "")

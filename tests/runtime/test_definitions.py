"""Declaring: names, duplicates, methods, wrong arguments, options."""

from __future__ import annotations

import functools
import gc
import inspect
import warnings
from collections.abc import AsyncIterator, Iterator
from datetime import datetime, timedelta
from typing import Any

import pytest

import perdure.sync
from perdure import App, Retry, sleep
from perdure.errors import DefinitionError
from tests.runtime.support import Ledger, history, kinds, until


def test_a_duplicate_workflow_shows_both_places(app: App) -> None:
    @app.workflow(name="checkout")
    async def first() -> None: ...

    first_line = first.__wrapped__.__code__.co_firstlineno
    with pytest.raises(DefinitionError) as caught:

        @app.workflow(name="checkout")
        async def second() -> None: ...

    assert str(caught.value) == (
        f"two workflows are named 'checkout': {__file__}:{first_line} and {__file__}:{first_line + 6}; "
        "give one of them another name: @app.workflow(name=…)"
    )


def test_a_duplicate_step_shows_both_places(app: App) -> None:
    @app.step(name="charge")
    async def first() -> None: ...

    with pytest.raises(DefinitionError, match=r"two steps are named 'charge': .*test_definitions\.py:\d+ and .*:\d+"):

        @app.step(name="charge")
        def second() -> None: ...


def test_a_module_that_was_loaded_again_after_an_edit_is_told_from_a_duplicate(app: App) -> None:
    """importlib.reload, and the cell of a notebook: the same name in the same namespace."""
    space: dict[str, object] = {"app": app}
    code = "@app.step\nasync def charge() -> None: ...\n"
    exec(compile(code, "cell-1", "exec"), space)
    with pytest.raises(DefinitionError, match=r"cell-1:1 and cell-2:1; .* make the App anew in there, too"):
        exec(compile(code, "cell-2", "exec"), space)
    with pytest.raises(DefinitionError, match=r"cell-1:1 and cell-3:1; give one .*name=…\)$"):
        exec(compile(code, "cell-3", "exec"), {"app": app})


def test_a_duplicate_queue_shows_both_calls(app: App) -> None:
    app.queue("emails")
    first = lines_here() - 1
    with pytest.raises(DefinitionError) as refused:
        app.queue("emails", concurrency=10)
    assert str(refused.value) == (
        f"two queues are named 'emails': {__file__}:{first} and {__file__}:{first + 3}; "
        "give one of them another name: app.queue(…)"
    )


def lines_here() -> int:
    """The line that asks."""
    frame = inspect.currentframe()
    assert frame is not None
    assert frame.f_back is not None
    return frame.f_back.f_lineno


async def test_a_workflow_and_a_step_may_share_a_name(app: App) -> None:
    @app.step(name="charge")
    async def step(x: int) -> int:
        return x + 1

    @app.workflow(name="charge")
    async def workflow(x: int) -> int:
        return await step(x)

    async with app:
        assert await workflow(1) == 2


def test_names_default_to_the_qualified_name(app: App) -> None:
    @app.workflow
    async def body() -> None: ...

    assert body.name == "test_names_default_to_the_qualified_name.body"
    assert body.__name__ == "body"


@pytest.mark.parametrize("name", ["a\0b", "x" * 513, "\u4e00" * 171, "a\ud800", 7])
def test_a_name_that_cannot_be_stored_is_refused(app: App, name: str) -> None:
    async def body() -> None: ...

    with pytest.raises(DefinitionError, match="cannot name a"):
        app.workflow(name=name)(body)


# -- methods


def test_methods_are_refused_as_workflows_with_the_advice(app: App) -> None:
    with pytest.raises(
        DefinitionError, match=r"Shop\.checkout \(.*:\d+\) is a method: no 'self' survives.*@app\.resource"
    ):

        class Shop:
            @app.workflow
            async def checkout(self) -> None: ...


def test_class_methods_are_refused_as_workflows(app: App) -> None:
    with pytest.raises(DefinitionError, match="a workflow is a plain function of a module"):

        class Shop:
            @app.workflow
            @classmethod
            async def checkout(cls) -> None: ...


def test_a_bound_method_is_refused_as_a_workflow(app: App) -> None:
    class Shop:
        async def checkout(self) -> None: ...

    with pytest.raises(DefinitionError, match="method"):
        app.workflow(Shop().checkout)


async def test_a_static_method_may_be_a_workflow(app: App) -> None:
    class Shop:
        @staticmethod
        @app.workflow
        async def checkout(x: int) -> int:
            return x + 1

    async with app:
        assert await Shop.checkout(1) == 2


class Gateway:
    """Cannot be encoded, and differs in each process."""

    def __init__(self, ledger: Ledger, name: str) -> None:
        self.ledger = ledger
        self.name = name
        self.socket = object()


async def test_steps_may_be_methods_and_self_is_neither_recorded_nor_fingerprinted(app: App, ledger: Ledger) -> None:
    class Api(Gateway):
        @app.step
        async def charge(self, cents: int) -> str:
            self.ledger.note(f"{self.name} {cents}")
            return f"paid {cents}"

    current = {"api": Api(ledger, "first")}

    @app.workflow
    async def body() -> list[str]:
        one = await current["api"].charge(1)
        await sleep(0.2)
        return [one, await current["api"].charge(cents=2)]

    async with app:
        await body.options(id="a").start()
        await until(lambda: history(app, "a"))
    current["api"] = Api(ledger, "second")  # another object in the next process
    async with app:
        assert await body.handle("a").result() == ["paid 1", "paid 2"]
        records = await history(app, "a")
    assert ledger == ["first 1", "second 2"]
    assert [r.shown for r in records if r.kind.name == "STEP"] == ["1", "cents=2"]


# -- calls that do not fit


async def test_wrong_arguments_of_a_step_are_an_error_at_the_call_before_anything(app: App, ledger: Ledger) -> None:
    @app.step
    async def charge(order: str, cents: int = 1) -> None:
        ledger.note("ran")

    @app.workflow
    async def body() -> list[str]:
        said: list[str] = []
        for call in (charge, lambda: charge("a", 1, 2), lambda: charge("a", express=True)):
            try:
                call()  # not awaited: the error comes at the call
            except TypeError as error:
                said.append(str(error))
        return said

    async with app:
        await body.options(id="a").start()
        said = await body.handle("a").result()
        assert await history(app, "a") == []
    assert len(said) == 3
    assert all(
        text.startswith("step test_wrong_arguments_of_a_step_are_an_error_at_the_call_before_anything.charge(order: ")
        and "test_definitions.py:" in text
        for text in said
    )
    assert ["missing a required argument: 'order'" in said[0], "too many" in said[1], "express" in said[2]] == [
        True
    ] * 3
    assert ledger == []


async def test_wrong_arguments_of_a_method_step(app: App) -> None:
    class Api:
        @app.step
        async def charge(self, cents: int) -> None: ...

    api = Api()

    @app.workflow
    async def body() -> None:
        await api.charge()

    async with app:
        with pytest.raises(TypeError, match="missing a required argument: 'cents'"):
            await body()


async def test_wrong_arguments_of_a_workflow_are_an_error_at_the_call(app: App) -> None:
    @app.workflow
    async def body(order: str) -> None: ...

    async with app:
        with pytest.raises(TypeError, match="missing a required argument: 'order'"):
            await body.options(id="a").start()
        with pytest.raises(
            TypeError,
            match=r"workflow .*body\(order: .*\).*: too many positional arguments; declared at .*\.py",
        ):
            body("a", "b")
        assert [info.id async for info in app.client.list()] == []


# -- options


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"ID": "a"}, r"there is no option 'ID'; options are: .*id"),
        ({"on_conflict": "ignore"}, "on_conflict='ignore' is none of attach, fail, replace"),
        ({"on_parent_close": "die"}, "on_parent_close='die' is none of cancel, abandon, wait"),
        ({"id": ""}, "workflow id '' cannot be used"),
        ({"id": "x" * 513}, "at most 512 bytes"),
        ({"id": "a\0b"}, "cannot be used"),
        ({"id": "\ud800"}, "cannot be used"),
        ({"id": 7}, "workflow id 7 cannot be used"),
        ({"delay": datetime(2030, 1, 1)}, "has no time zone"),
        ({"delay": "soon"}, "soon"),
        ({"timeout": -1}, "-1"),
        ({"attributes": {"a": object()}}, r"attributes=\{'a': .*cannot be stored"),
        ({"attributes": [1]}, "give a dict"),
        ({"attributes": {1: "a"}}, "are not names"),
        ({"version": 2}, "version=2 is no version"),
        ({"version": "a\0"}, r"version='a\\x00' is no version: give its text, 1 to 200 printable characters"),
        ({"version": "a\ud800"}, "is no version"),
        ({"version": "x" * 201}, "is no version"),
        ({"dedup": "a\ud800"}, r"dedup='a\\ud800' is no key: text of 1 to 1024 bytes, without NUL and lone surrogates"),
        ({"dedup": "x" * 1025}, "give a hash of what is longer"),
        ({"dedup": "a\0"}, "is no key"),
        ({"dedup": ""}, "is no key"),
        ({"dedup": 7}, "dedup=7 is no key"),
        ({"priority": "high"}, "priority='high' is no priority"),
    ],
)
def test_options_are_checked_where_they_are_given(app: App, options: dict[str, object], words: str) -> None:
    @app.workflow
    async def body() -> None: ...

    with pytest.raises((DefinitionError, TypeError), match=words):
        body.options(**options)  # type: ignore[arg-type]


def test_options_add_up_and_leave_the_workflow_as_it_was(app: App) -> None:
    @app.workflow
    async def body() -> None: ...

    first = body.options(id="a", timeout=3)
    second = first.options(id="b")
    assert (first._options.id, second._options.id, second._options.timeout) == ("a", "b", 3_000_000)
    assert body._options.id is None


def test_options_can_be_set_back_to_their_default(app: App) -> None:
    @app.workflow
    async def body() -> None: ...

    replacing = body.options(on_conflict="replace", priority=3)
    assert replacing.options(on_conflict="attach", priority=0)._options.on_conflict == "attach"


@pytest.mark.parametrize(
    "arguments", [{"attempts": 0}, {"on": 3}, {"delay": -1}, {"factor": 0}, {"on": KeyboardInterrupt}]
)
def test_a_retry_that_cannot_be_is_refused_where_it_is_made(arguments: dict[str, object]) -> None:
    with pytest.raises((DefinitionError, TypeError)):
        Retry(**arguments)  # type: ignore[arg-type]


async def test_a_step_with_options_keeps_what_is_not_given(app: App, ledger: Ledger) -> None:
    @app.step(retry=Retry(2, delay=0))
    async def flaky() -> None:
        ledger.note("ran")
        raise OSError("no")

    @app.workflow
    async def body() -> None:
        await flaky.options(name="other", timeout=timedelta(seconds=3))()

    async with app:
        handle = await body.options(id="a").start()
        with pytest.raises(OSError, match="no"):
            await handle.result()
        assert await kinds(app, "a") == ["ATTEMPT other ERROR", "STEP other ERROR"]
    assert ledger == ["ran", "ran"]


async def test_an_undecorated_function_as_a_step(app: App, ledger: Ledger) -> None:
    def plain(x: int) -> str:
        ledger.note("ran")
        return str(x)

    @app.workflow
    async def body() -> list[str]:
        return [await app.step(plain)(1), await app.step(name="p", timeout=3)(plain)(2)]

    async with app:
        handle = await body.options(id="a").start()
        assert await handle.result() == ["1", "2"]
        assert await kinds(app, "a") == [
            "STEP test_an_undecorated_function_as_a_step.plain VALUE",
            "STEP p VALUE",
        ]
    assert ledger == ["ran", "ran"]


@pytest.mark.parametrize("kind", ["step", "workflow"])
def test_generators_are_refused(app: App, kind: str) -> None:
    def numbers() -> Iterator[int]:
        yield 1

    async def more_numbers() -> AsyncIterator[int]:
        yield 1

    for fn in (numbers, more_numbers):
        with pytest.raises(DefinitionError, match=rf"{kind} .*numbers \(.*test_definitions.*\) is a generator"):
            getattr(app, kind)(fn)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"max_deaths": 0}, "max_deaths=0 cannot be"),
    ],
)
def test_what_a_workflow_is_declared_with_is_checked(app: App, arguments: dict[str, Any], words: str) -> None:
    async def body() -> None: ...

    with pytest.raises(DefinitionError, match=words):
        app.workflow(**arguments)(body)


def test_modules_are_a_list() -> None:
    with pytest.raises(DefinitionError, match=r"give a list of modules: modules=\['shop'\]"):
        App("shop", modules="shop")


def test_what_a_step_is_declared_with_is_checked(app: App) -> None:
    with pytest.raises(DefinitionError, match=r"retry=3 is no Retry; write retry=Retry\(attempts=3\)"):
        app.step(retry=3)  # type: ignore[call-overload]

    with pytest.raises(DefinitionError, match="does not say what arguments it takes"):
        app.step(int)

    @app.step
    async def step() -> None: ...

    with pytest.raises(DefinitionError, match="is no Retry"):
        step.options(retry=3)  # type: ignore[arg-type]


def test_what_is_not_a_function_is_no_step(app: App) -> None:
    with pytest.raises(DefinitionError, match="which is not a function"):
        app.step(3)  # type: ignore[call-overload]
    with pytest.raises(DefinitionError, match="class methods cannot be steps"):

        class Shop:
            @app.step
            @classmethod
            def charge(cls) -> None: ...


def _wrapped(fn: Any) -> Any:
    @functools.wraps(fn)
    def wrapper(*args: Any) -> Any:
        return fn(*args)

    return wrapper


async def test_a_plain_wrapper_around_an_async_step_is_told_of(app: App, ledger: Ledger) -> None:
    """Its body never ran, and the coroutine that it would have been is closed: nothing warns of it."""

    async def charge(cents: int) -> int:
        ledger.note("ran")
        return cents

    step = app.step(_wrapped(charge), retry=Retry(3, delay=0))

    @app.workflow
    async def body() -> int:
        return int(await step(1))

    words = r"returned a coroutine.*make the wrapper 'async def'.*test_definitions.py:\d+"
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        async with app:
            with pytest.raises(DefinitionError, match=words):
                await body()
            with pytest.raises(DefinitionError, match=words):
                await step(1)
        gc.collect()
    assert [warning for warning in warned if "never awaited" in str(warning.message)] == []
    assert ledger == []


def test_the_same_in_blocking_code(sync_app: perdure.sync.App) -> None:
    async def charge(cents: int) -> int:
        return cents

    step: Any = sync_app.step(_wrapped(charge))

    @sync_app.workflow
    def body() -> int:
        return int(step(1))

    with sync_app:
        with pytest.raises(DefinitionError, match="returned a coroutine"):
            body()
        with pytest.raises(DefinitionError, match="returned a coroutine"):
            step(1)


async def test_an_object_that_is_called_with_await_may_be_a_step(app: App) -> None:
    class Adder:
        def __init__(self, by: int) -> None:
            self.by = by

        async def __call__(self, to: int) -> int:
            return to + self.by

    step = app.step(name="add")(Adder(2))

    @app.workflow
    async def body() -> int:
        return await step(1)

    async with app:
        assert await body() == 3
        assert await step(2) == 4


def test_what_has_no_name_of_its_own_is_refused_as_a_workflow_in_words(app: App) -> None:
    class Adder:
        async def __call__(self, to: int) -> int:
            return to

    for what, name in ((Adder(), r".*\.Adder"), (functools.partial(sorted, key=abs), "partial")):
        with pytest.raises(DefinitionError, match=rf"^workflow {name} \(.*\) must be 'async def' in perdure"):
            app.workflow(name="add")(what)


def test_a_transaction_without_a_source_is_refused_where_it_is_declared(app: App) -> None:
    def transfer(db: Any, cents: int) -> int:
        return cents

    with pytest.raises(DefinitionError, match=r"transfer .*the source is missing: write @app.transaction\(source\)"):
        app.transaction(transfer)  # type: ignore[arg-type]
    for source in (dict, functools.partial(transfer, None, cents=1), lambda: None):
        app.transaction(source)

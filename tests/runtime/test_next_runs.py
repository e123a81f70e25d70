"""What a run that continues as new may say of the next one."""

from __future__ import annotations

import pytest

from perdure import App
from perdure.errors import Misuse


async def test_attributes_may_be_others_in_the_next_run(app: App) -> None:
    @app.workflow(name="chain")
    async def chain(n: int) -> None:
        if n == 1:
            chain.options(attributes={"phase": "two"}).continue_as_new(2)
        if n < 3:
            chain.continue_as_new(n + 1)

    async with app:
        handle = await chain.options(attributes={"phase": "one"}).start(0)
        await handle.result()
        info = await handle.info()
        assert (info.run, info.attributes) == (4, {"phase": "two"})


async def test_options_that_a_next_run_cannot_have_are_refused_at_the_call(app: App) -> None:
    line = app.queue("line")

    @app.workflow(name="chain", timeout=3600, queue=line)
    async def chain(n: int) -> int:
        if n == 0:
            with pytest.raises(Misuse, match="delay=, queue=, timeout=: "):
                chain.options(attributes={}, delay=1).options(timeout=2, queue=line).continue_as_new(1)
            chain.continue_as_new(2)  # what is declared is no option
        return n

    async with app:
        assert await chain(0) == 2

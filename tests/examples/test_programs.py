"""The examples that are programs: each prints what it says it does."""

from __future__ import annotations

import pytest

from examples import agent_approval, background_start, events, fan_out, ids_and_idempotency, messages, saga

pytestmark = pytest.mark.usefixtures("database")


@pytest.fixture
def printed(capsys: pytest.CaptureFixture[str]):
    def lines() -> list[str]:
        return capsys.readouterr().out.splitlines()

    return lines


async def test_ids_and_idempotency(printed) -> None:
    await ids_and_idempotency.main()
    lines = printed()
    mail = lines[1]
    assert mail.startswith("mail from welcome-")
    assert lines == [
        "an email goes to ann@example.com",
        mail,
        mail,
        mail,
        "the same id for another call is refused",
        "an email goes to bob@example.com",
        mail,
        "run 2",
    ]


async def test_background_start(printed) -> None:
    await background_start.main()
    assert printed() == ["status: running", "result: one and two", "status: completed"]


async def test_events(printed) -> None:
    await events.main()
    assert printed() == [
        "already 1 of 3",
        "['page 1', 'page 2', 'page 3']",
        "in the end Progress(done=3, total=3)",
        "never set: None",
    ]


async def test_messages(printed) -> None:
    await messages.main()
    assert printed() == ["the painting goes for 900", "nobody wants the vase"]


async def test_saga(printed) -> None:
    await saga.main()
    assert printed() == [
        "flight booked for Rome",
        "hotel booked for Rome",
        "('flight-Rome', 'hotel-Rome')",
        "flight booked for Venice",
        "cancelled hotel-Venice, if there was one",
        "cancelled flight-Venice",
        "None",
    ]


async def test_fan_out(printed) -> None:
    await fan_out.main()
    assert printed() == ["bytes: 740", "children: 6 ['completed']"]


async def test_agent_approval(printed) -> None:
    await agent_approval.main()
    assert printed() == [
        "may I run 'rm big.log' ? yes",
        "runs: rm big.log",
        "the disk has room again",
        "may I run 'rm big.log' ? no",
        "'rm big.log' was refused in <id>",
    ]

"""An agent whose risky tool calls wait for a person: for a minute or a month, through crashes and deploys.

python examples/agent_approval.py
"""

import asyncio
from dataclasses import dataclass, field

from perdure import App, Event, Step, Topic, current, recv, set_event

agents = App("agents")


@dataclass
class Call:
    id: str
    tool: str
    argument: str
    risky: bool = False


@dataclass
class Turn:
    text: str
    calls: list[Call] = field(default_factory=list)


pending = Event[Call]("pending")


@agents.step
async def think(messages: list[str]) -> Turn:
    """Here a model is asked; its answer is recorded, so that a replay does not ask again."""
    script = [
        Turn("I look around", [Call("1", "search", "disk usage"), Call("2", "search", "big files")]),
        Turn("I clean up", [Call("3", "shell", "rm big.log", risky=True)]),
    ]
    turn = sum(message.startswith("I ") for message in messages)
    return script[turn] if turn < len(script) else Turn("the disk has room again")


@agents.step
async def search(query: str) -> str:
    return f"found: {query}"


@agents.step
def shell(command: str) -> str:
    print("runs:", command)
    return "ok"


TOOLS: dict[str, Step[[str], str]] = {"search": search, "shell": shell}


@agents.workflow
async def agent(question: str) -> str:
    messages = [question]
    while (turn := await think(messages)).calls:
        for call in (call for call in turn.calls if call.risky):
            await set_event(pending, call)
            if not await recv(Topic[bool](f"approve/{call.id}"), timeout=86400):
                return f"{call.argument!r} was refused in {current().id}"
        results = await asyncio.gather(*(TOOLS[call.tool](call.argument) for call in turn.calls))
        messages += [turn.text, *results]
    return turn.text


async def main() -> None:
    async with agents:
        for yes in (True, False):
            handle = await agent.start("is the disk full?")
            call = await handle.get_event(pending)
            assert call is not None
            print("may I run", repr(call.argument), "?", "yes" if yes else "no")
            await handle.send(yes, f"approve/{call.id}")
            answer = await handle.result()
            print(answer.replace(handle.id, "<id>"))


if __name__ == "__main__":
    asyncio.run(main())

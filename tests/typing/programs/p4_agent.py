"""An agent whose risky calls wait for approval. With a token stream: later/p4_agent.py."""

import asyncio
from typing import Any

from pydantic import BaseModel

from perdure import App, Event, Step, Topic, current, recv, set_event


class Call(BaseModel):
    id: str
    tool: str
    args: dict[str, Any]
    risky: bool = False


class Turn(BaseModel):
    text: str
    calls: list[Call] = []


agents = App("agents")
pending = Event[Call]("pending")


@agents.step
async def think(messages: list[str]) -> Turn:
    return Turn(text="hello")


@agents.step
async def search(query: str) -> str:
    return query


@agents.step
def shell(command: str) -> str:
    return command


TOOLS: dict[str, Step[..., str]] = {"search": search, "shell": shell}


def plain(x: int) -> str:
    return str(x)


@agents.workflow
async def research(question: str) -> str:
    messages = [question]
    while (turn := await think(messages)).calls:
        for call in (c for c in turn.calls if c.risky):
            await set_event(pending, call)
            if not await recv(Topic[bool](f"approve/{call.id}"), timeout=86400):
                return f"refused {call.tool} in {current().id}"
        results = await asyncio.gather(*(TOOLS[c.tool](**c.args) for c in turn.calls))
        messages += [turn.text, *results]
        messages.append(await agents.step(plain)(3))
    messages.append(await agents.step(name="p", timeout=3)(plain)(3))
    return turn.text

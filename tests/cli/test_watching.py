"""``perdure workflow watch`` and ``stream``: what a workflow records and says, as it does so."""

from __future__ import annotations

import asyncio
import json
import os
import pty
import signal
import subprocess
import threading
from pathlib import Path
from typing import Any

import pytest

from tests.cli.conftest import PERDURE, play


def lines(result: Any) -> list[dict[str, Any]]:
    return [json.loads(line) for line in result.stdout.splitlines()]


async def begin(app: Any, name: str, id: str, *args: Any) -> Any:
    return await app.client.workflow(name, returns=Any).options(id=id).start(*args)


@pytest.fixture
def told(url: str) -> str:
    """A database in which ``stream`` has said three words, one of them secret, and one has failed."""

    async def scene(app: Any, shop: Any) -> None:
        await (await begin(app, "teller", "teller", ["a", "b"])).result()
        refused = await begin(app, "refuse", "refused", "card")
        with pytest.raises(ValueError, match="declined"):
            await refused.result()

    play(url, scene)
    return url


@pytest.mark.usefixtures("told")
def test_a_stream_is_printed_a_value_a_line_from_an_offset(perdure: Any) -> None:
    assert perdure("workflow", "stream", "teller", "words").stdout.splitlines() == ['"a"', '"b"', '"********"']
    assert perdure("workflow", "stream", "teller", "words", "--offset", 1).stdout.splitlines() == ['"b"', '"********"']
    found = lines(perdure("workflow", "stream", "teller", "words", "--offset", 1, "-o", "json"))
    assert found[0] == {"version": 1, "offset": 1, "value": "b"}
    assert perdure("workflow", "stream", "teller", "never").stdout == ""


@pytest.mark.usefixtures("told")
def test_an_unknown_workflow_is_not_found(perdure: Any) -> None:
    for verb in (["stream", "nobody", "words"], ["watch", "nobody"]):
        assert "nobody" in perdure("workflow", *verb, code=3).stderr


@pytest.mark.usefixtures("told")
def test_watch_tells_records_progress_and_outcome_in_json_lines(perdure: Any) -> None:
    found = lines(perdure("workflow", "watch", "teller"))
    kinds = [one["record"]["kind"] for one in found if "record" in one]
    assert kinds == ["step", "stream"]
    progress = [one["progress"] for one in found if "progress" in one]
    assert progress[0] == {"label": "words", "done": 0, "total": 2, "path": "1"}
    assert progress[-1] == {"label": "words", "done": 2, "total": 2, "path": "1"}
    assert found[-1]["outcome"] == {"id": "teller", "run": 1, "status": "completed", "result": 2}
    assert {"version": 1, "status": "completed", "run": 1} in found


@pytest.mark.usefixtures("told")
def test_watch_exits_as_the_workflow_ended(perdure: Any) -> None:
    found = lines(perdure("workflow", "watch", "refused", code=1))
    assert found[-1]["outcome"]["status"] == "failed"
    assert found[-1]["outcome"]["error"]["type"] == "ValueError"


def test_they_follow_what_goes_on(url: str, perdure: Any) -> None:
    heard: dict[str, list[str]] = {}

    def listen(verb: str, *args: str) -> None:
        done = subprocess.run(
            [*PERDURE, "workflow", verb, "p", *args, "-d", url], capture_output=True, text=True, check=False
        )
        heard[verb] = done.stdout.splitlines()

    async def scene(app: Any, shop: Any) -> None:
        handle = await begin(app, "parcel", "p")
        listeners = [threading.Thread(target=listen, args=args) for args in (("watch",), ("stream", "s"))]
        for listener in listeners:
            listener.start()
        await handle.send(True, shop.shipped)
        await handle.result()
        for listener in listeners:
            await asyncio.to_thread(listener.join)

    play(url, scene)
    assert heard["stream"] == []
    assert json.loads(heard["watch"][-1])["outcome"]["result"] is True


def test_they_say_why_nothing_happens(url: str) -> None:
    async def scene(app: Any, shop: Any) -> None:
        await begin(app, "parcel", "p")

    play(url, scene)
    for verb in (["watch", "p"], ["stream", "p", "words"]):
        listening = subprocess.Popen(
            [*PERDURE, "workflow", *verb, "-d", url], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
        )
        assert listening.stderr is not None
        assert "workflow p does not move" in listening.stderr.readline()
        listening.send_signal(signal.SIGINT)
        assert listening.wait(20) == 130
        listening.stderr.close()


@pytest.mark.usefixtures("told")
def test_on_a_terminal_progress_is_a_bar(url: str, here: Path) -> None:
    master, slave = pty.openpty()
    try:
        done = subprocess.run(
            [*PERDURE, "workflow", "watch", "teller", "-d", url], stdout=slave, stderr=subprocess.PIPE, cwd=here,
            env={**os.environ, "PYTHONIOENCODING": "utf-8", "TERM": "xterm"}, check=False,
        )  # fmt: skip
        os.close(slave)
        shown = b""
        while chunk := _read(master):
            shown += chunk
    finally:
        os.close(master)
    text = shown.decode()
    assert done.returncode == 0, done.stderr
    assert "100 %  2/2" in text
    assert "tell(" in text
    assert "completed after" in text


def _read(master: int) -> bytes:
    try:
        return os.read(master, 65536)
    except OSError:  # Linux says so when all writers have closed
        return b""

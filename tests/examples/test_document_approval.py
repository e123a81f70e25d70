"""The desk in a browser: written, sent back, approved by two, published; and what the pages offer to whom."""

from __future__ import annotations

import asyncio
import re
import threading
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from flask.testing import FlaskClient

from examples.document_approval import process, web
from examples.document_approval.process import Document, desk
from perdure.errors import Interrupted
from perdure.process import mermaid
from perdure.schemes.drawn import TIMES
from perdure.sync.process import svg
from perdure.testing import harness

README = Path(web.__file__).with_name("README.md")


@pytest.fixture
def browser(database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FlaskClient]:
    monkeypatch.setattr(process, "OUT", tmp_path / "published")
    with desk:
        yield web.create_app().test_client()


def be(browser: FlaskClient, who: str) -> None:
    browser.get(f"/as/{who}")


def begin(browser: FlaskClient) -> str:
    be(browser, "ann")
    return browser.post("/documents", data={"title": "On <durability>"}).headers["Location"]


def offered(page: str) -> list[str]:
    return re.findall(r'action="/documents/[^"/]+/(\w+)"', page)


def lit(page: str) -> str:
    return re.findall(r'class="lit-text"[^>]*>([^<]+)<', page)[0]


def test_a_document_on_its_way(browser: FlaskClient, tmp_path: Path) -> None:
    where = begin(browser)
    assert "On &lt;durability&gt;" in browser.get(where).text  # it may not have begun yet

    browser.post(f"{where}/submit", data={"text": "Teh text"})
    page = browser.get(where).text
    assert (lit(page), offered(page)) == ("Draft", ["withdraw", "submit"])
    assert "misspelt: teh" in page

    browser.post(f"{where}/submit", data={"text": "The text"})
    page = browser.get(where).text
    assert (lit(page), offered(page)) == ("In review", ["withdraw"])

    be(browser, "eve")
    assert offered(browser.get(where).text) == ["approve", "send_back"]
    browser.post(f"{where}/send_back", data={"reason": "too short"})
    assert lit(browser.get(where).text) == "Draft"
    refused = browser.post(f"{where}/approve", data={"comment": "now"})
    assert refused.status_code == 409
    assert "approve" in refused.text

    be(browser, "ann")
    browser.post(f"{where}/submit", data={"text": "The whole text"})
    be(browser, "eve")
    browser.post(f"{where}/approve", data={"comment": "good"})
    page = browser.get(where).text
    assert lit(page) == "In review"
    assert "approved by eve" in page
    browser.post(f"{where}/approve", data={"comment": "again"})  # one pair of eyes is one
    assert lit(browser.get(where).text) == "In review"
    be(browser, "bob")
    assert browser.post(f"{where}/approve", data={"comment": ""}).status_code == 303
    page = browser.get(where).text
    assert (lit(page), offered(page)) == ("Published", [])
    assert (
        tmp_path / "published" / f"{where.rpartition('/')[2]}.txt"
    ).read_text() == "On <durability>\n\nThe whole text\n"
    assert f"submit by author {TIMES}3" in page
    assert where in browser.get("/").text


def test_what_is_not_there(browser: FlaskClient) -> None:
    assert browser.get("/documents/none").status_code == 404


async def test_who_approved_need_not_do_so_again_after_a_crash(
    database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed while it is being published: by default it is back in review, in Error; the policy says otherwise."""
    monkeypatch.setattr(process, "OUT", tmp_path / "published")
    begun, go_on = threading.Event(), threading.Event()
    writes = process.Path.write_text

    def write_slowly(self: Path, *args: Any, **kwargs: Any) -> int:
        begun.set()
        go_on.wait(20)
        return writes(self, *args, **kwargs)

    async with harness(desk, database=database) as h:
        document = await h.in_thread(lambda: Document.options(id="d").start(title="T", author="ann"))
        await h.in_thread(lambda: document.execute("submit", actor="ann", text="The text"))
        await h.in_thread(lambda: document.execute("approve", actor="eve"))
        with monkeypatch.context() as slow:
            slow.setattr(process.Path, "write_text", write_slowly)
            last = asyncio.ensure_future(h.in_thread(lambda: document.execute("approve", actor="bob")))
            await asyncio.to_thread(begun.wait, 20)
        await h.crash()
        go_on.set()
        with pytest.raises(Interrupted):
            await last
        it = await h.in_thread(document.result)
        assert (it.published_as, it.late) == ("d.txt", True)
        assert [step.trigger for step in await h.in_thread(document.history)][-2:] == ["recovery", "auto"]


async def test_reviewers_are_reminded_every_day_and_in_the_end_it_is_forgotten(
    database: str, capsys: pytest.CaptureFixture[str]
) -> None:
    async with harness(desk, database=database) as h:
        document = await h.in_thread(lambda: Document.options(id="d").start(title="T", author="ann"))
        await h.in_thread(lambda: document.execute("submit", actor="ann", text="The text"))
        for _ in range(3):
            await h.advance(timedelta(days=1))
        assert capsys.readouterr().out.count("to eve: 'T' waits for you") == 4
        for _ in range(27):
            await h.advance(timedelta(days=1))
        assert await h.in_thread(document.status) == "Finalized"
        assert await h.in_thread(document.state) == "withdrawn"


def test_the_readme_has_the_picture() -> None:
    text = README.read_text()
    assert f"```mermaid\n{mermaid(Document, current='review')}```" in text
    assert README.with_name("document.svg").read_text() == svg(Document, current="review")

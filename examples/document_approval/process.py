"""Documents that are written, checked, reviewed and published: the process, without anything of the web."""

from __future__ import annotations

import re
from dataclasses import field
from datetime import timedelta
from pathlib import Path

from perdure.recovery import Decision, Default, Incident, RunFrom
from perdure.sync import App, current
from perdure.sync.process import Process, State

desk = App("documents")
REVIEWERS = ("eve", "bob")
OUT = Path("published")


@desk.step
def spelling(text: str) -> list[str]:
    """Stands for a service that takes its time."""
    return sorted(set(re.findall(r"\b(?:teh|recieve|seperate)\b", text.lower())))


@desk.step
def tell(who: str, what: str) -> None:
    """Stands for a mail."""
    print(f"to {who}: {what}")


@desk.step
def publish(title: str, text: str) -> str:
    """A file under a name of its own: published again, it is the same file."""
    OUT.mkdir(exist_ok=True)
    path = OUT / f"{current().id}.txt"
    path.write_text(f"{title}\n\n{text}\n")
    return path.name


@desk.process
class Document(Process):
    """``python -m examples.document_approval.web`` shows it."""

    title: str
    author: str
    text: str = ""
    complaints: list[str] = field(default_factory=list)
    approvals: list[str] = field(default_factory=list)
    published_as: str | None = None
    late: bool = False  # set by the recovery policy

    draft = State("Draft", initial=True, settable=True)
    checking = State("Spelling is checked")
    review = State("In review", settable=True)
    publishing = State("Being published", on_error={ConnectionError: 3, "*": "review"})
    published = State("Published", final=True)
    withdrawn = State("Withdrawn", final=True)

    checked = checking.to(draft, cond="complaints", auto=True) | checking.to(review, auto=True)
    remind = review.to.itself(every=timedelta(days=1), internal=True, on="remind_reviewers")
    forgotten = review.to(withdrawn, after=timedelta(days=30), keep=True)
    withdraw = draft.to(withdrawn, by="author") | review.to(withdrawn, by="author")
    release = publishing.to(published, auto=True)

    @draft.to(checking, by="author")
    def submit(self, text: str) -> None:
        self.text, self.approvals = text, []

    @(review.to(publishing, by="reviewer", cond="second_pair_of_eyes") | review.to.itself(by="reviewer", internal=True))
    def approve(self, comment: str = "", actor: str = "") -> None:
        self.approvals = sorted({*self.approvals, actor})
        tell(self.author, f"{actor} approves {self.title!r}. {comment}")

    @review.to(draft, by="reviewer", reverse=True)
    def send_back(self, reason: str, actor: str = "") -> None:
        tell(self.author, f"{actor} sends {self.title!r} back: {reason}")

    def reviewer(self, actor: str) -> bool:
        return actor in REVIEWERS and actor != self.author

    def second_pair_of_eyes(self, actor: str) -> bool:
        return bool(set(self.approvals) - {actor})

    def on_enter_checking(self) -> None:
        self.complaints = spelling(self.text)

    def on_enter_review(self) -> None:
        self.remind_reviewers()

    def remind_reviewers(self) -> None:
        for who in REVIEWERS:
            if who not in (*self.approvals, self.author):
                tell(who, f"{self.title!r} waits for you")

    def on_enter_publishing(self) -> None:
        self.published_as = publish(self.title, self.text)


@desk.recovery_policy(Document)
def after_crash(incident: Incident) -> Decision:
    """Who approved twice need not do so again because a computer died: it is published, and says that it was late."""
    if incident.entering == "publishing" and incident.attempt <= 3:
        return RunFrom(Document.publishing, set={"late": True}, because="approved before the crash")
    return Default()

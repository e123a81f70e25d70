"""The desk in a browser: a page for each document, with the picture of where it stands and a form for each command.

    python -m examples.document_approval.web

Who you are is what you say (``/as/eve``): a demonstration has no passwords. No page knows the scheme: what can be done,
by whom and with which parameters, is asked of the process.
"""

from __future__ import annotations

from flask import Flask, abort, make_response, redirect, render_template_string, request
from markupsafe import Markup
from werkzeug.wrappers import Response

from examples.document_approval.process import REVIEWERS, Document, desk
from perdure.errors import ProcessError, WorkflowNotFound
from perdure.sync.process import ProcessStatus, counted, svg

PAGE = """<!doctype html><meta charset="utf-8"><title>{{ title }}</title>
<style>
  body{font:16px/1.5 system-ui;max-width:60rem;margin:2rem auto;padding:0 1rem;color:#0f172a}
  form{margin:.5rem 0} input,textarea{font:inherit;padding:.3rem;width:24rem} textarea{height:6rem;display:block}
  button{font:inherit;padding:.3rem 1rem} table{border-collapse:collapse}
  td,th{padding:.2rem .8rem .2rem 0;text-align:left}
  .picture svg{max-width:100%;height:auto} .wrong{color:#b91c1c}
</style>
<p>You are <b>{{ me }}</b>.
Be {% for who in people %}<a href="/as/{{ who }}">{{ who }}</a> {% endfor %}· <a href="/">all</a></p>
<h1>{{ title }}</h1>
{% block body %}{% endblock %}"""

DESK = PAGE.replace(
    "{% block body %}{% endblock %}",
    """
<ul>{% for one in documents %}
  <li><a href="/documents/{{ one.id }}">{{ one.id }}</a> {{ one.status }}</li>
{% endfor %}</ul>
<form method="post" action="/documents">
  <input name="title" placeholder="title" required> <button>begin</button>
</form>""",
)

DOCUMENT = PAGE.replace(
    "{% block body %}{% endblock %}",
    """
{% if wrong %}<p class="wrong">{{ wrong }}</p>{% endif %}
<p>by {{ it.author }} · {{ status }}{% if it.approvals %} · approved by {{ it.approvals | join(", ") }}{% endif %}
{% if it.published_as %} · published as {{ it.published_as }}{% endif %}</p>
<div class="picture">{{ picture }}</div>
{% if it.complaints %}<p class="wrong">misspelt: {{ it.complaints | join(", ") }}</p>{% endif %}
<blockquote>{{ it.text }}</blockquote>
{% for command in commands %}
<form method="post" action="/documents/{{ id }}/{{ command.name }}">
  {% for parameter in command.parameters %}
  <textarea name="{{ parameter.name }}" placeholder="{{ parameter.name }}"
    {{ "required" if parameter.required }}></textarea>
  {% endfor %}<button>{{ command.name.replace("_", " ") }}</button>
</form>{% endfor %}
<table><tr><th>when<th>what<th>who<th>from<th>to</tr>
{% for step in history %}<tr><td>{{ step.at.strftime("%F %T") }}<td>{{ step.name or step.trigger }}
<td>{{ step.actor or "" }}<td>{{ step.source }}<td>{{ step.target }}</tr>{% endfor %}</table>""",
)


def create_app() -> Flask:
    """The web application; whoever runs it opens ``desk`` around it (or ``desk.connect()``, beside ``perdure run``)."""
    web = Flask(__name__)

    def me() -> str:
        return request.cookies.get("me", "ann")

    def common(title: str) -> dict[str, object]:
        return {"me": me(), "title": title, "people": ("ann", *REVIEWERS)}

    @web.get("/as/<who>")
    def be(who: str) -> Response:
        response = make_response(redirect(request.referrer or "/", 303))
        response.set_cookie("me", who)
        return response

    @web.get("/")
    def all_of_them() -> str:
        documents = list(desk.client.list("type = Document ORDER BY created DESC", limit=50))
        return render_template_string(DESK, **common("Documents"), documents=documents)

    @web.post("/documents")
    def begin() -> Response:
        document = Document.start(title=request.form["title"], author=me())
        return redirect(f"/documents/{document.id}", 303)

    @web.get("/documents/<key>")
    def show(key: str, wrong: str = "") -> str:
        document = Document.handle(key)
        try:
            it, state, status, history = document.parameters(), document.state(), document.status(), document.history()
        except WorkflowNotFound:
            abort(404)
        return render_template_string(
            DOCUMENT,
            **common(it.title),
            id=key,
            it=it,
            status=status,
            history=history,
            wrong=wrong,
            picture=Markup(svg(Document, current=state or None, counts=counted(history))),  # it escapes what it shows
            commands=[] if status is ProcessStatus.RUNNING else document.commands(actor=me()),
        )

    @web.post("/documents/<key>/<command>")
    def order(key: str, command: str) -> Response | tuple[str, int]:
        try:
            # Two who press a button at the same moment: one is told that the other was quicker.
            Document.handle(key).within(5).execute(command, actor=me(), **request.form)
        except ProcessError as refused:
            return show(key, wrong=str(refused)), 409
        return redirect(f"/documents/{key}", 303)

    return web


if __name__ == "__main__":
    with desk:
        create_app().run()

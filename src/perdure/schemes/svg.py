"""A scheme as an SVG picture that needs nothing else: no font, no script, no tool. It follows a dark page."""

from __future__ import annotations

from perdure.schemes.drawn import Counts, scheme_of
from perdure.schemes.form import Scheme
from perdure.schemes.layout import BOX, CHARACTER, LINE, Arrow, Box, layout

_STYLE = """
.page{fill:#fff}.box{fill:#f8fafc;stroke:#475569;stroke-width:1.5}.text{fill:#0f172a}.small{fill:#64748b}
.final{stroke-width:3}.line{fill:none;stroke:#64748b;stroke-width:1.5}.head{fill:#64748b}.back{stroke-dasharray:5 4}
.never{stroke:#cbd5e1}.lit{fill:#fde68a;stroke:#b45309;stroke-width:3}.lit-text{fill:#451a03}
@media(prefers-color-scheme:dark){.page{fill:#0f172a}.box{fill:#1e293b;stroke:#94a3b8}.text{fill:#f1f5f9}
.small{fill:#94a3b8}.line{stroke:#94a3b8}.head{fill:#94a3b8}.never{stroke:#475569}
.lit{fill:#fde68a;stroke:#f59e0b}.lit-text{fill:#451a03}}
""".replace("\n", "")

_FONT = "ui-sans-serif,system-ui,sans-serif"
_MARKER = 'viewBox="0 0 8 8" refX="8" refY="4" markerWidth="8" markerHeight="8" orient="auto"'


def svg(process: Scheme | type, /, *, current: str | None = None, counts: Counts | None = None) -> str:
    """The picture as text. ``current``: the state to light; ``counts``: how often each transition was taken.

    The same scheme gives the same text on every machine::

        Path("vacation.svg").write_text(svg(Vacation, current="review"))
    """
    scheme = scheme_of(process)
    plan = layout(scheme, counts)
    lit = None if current is None else scheme.state(current).name
    x, y = plan.start
    size = f'viewBox="0 0 {plan.width:.0f} {plan.height:.0f}" width="{plan.width:.0f}" height="{plan.height:.0f}"'
    head = '<path class="head" d="M0,0 L8,4 L0,8 z"/>'
    text = [
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img" font-family="{_FONT}" font-size="13">',
        f"<title>{_text(scheme.name)}{f': {_text(lit)}' if lit else ''}</title>",
        f"<style>{_STYLE}</style>",
        f'<defs><marker id="head" {_MARKER}>{head}</marker></defs>',
        '<rect class="page" width="100%" height="100%"/>',
        f'<circle class="head" cx="{x - 30:.1f}" cy="{y:.1f}" r="6"/>',
        f'<path class="line" marker-end="url(#head)" d="M{x - 24:.1f},{y:.1f} L{x:.1f},{y:.1f}"/>',
    ]
    text += [_path(arrow) for arrow in plan.arrows]
    final = {state.name for state in scheme.states if state.final}
    text += [_box(box, lit=box.name == lit, final=box.name in final) for box in plan.boxes]
    text += [_label(arrow) for arrow in plan.arrows if arrow.line.labels]
    return "\n".join([*text, "</svg>"]) + "\n"


def _path(arrow: Arrow) -> str:
    marks = "line" + (" back" if arrow.line.reverse else "") + (" never" if arrow.line.taken == 0 else "")
    return f'<path class="{marks}" marker-end="url(#head)" d="{arrow.path}"/>'


def _box(box: Box, *, lit: bool, final: bool) -> str:
    kind = "lit" if lit else "box final" if final else "box"
    left, top = box.x - box.width / 2, box.y - BOX / 2
    drawn = f'<rect class="{kind}" x="{left:.1f}" y="{top:.1f}" width="{box.width:.1f}" height="{BOX:.0f}" rx="8"/>'
    first = box.y + 4.5 - (len(box.text) - 1) * LINE / 2
    for number, part in enumerate(box.text):
        mark = "lit-text" if lit else "text" if number == len(box.text) - 1 else "small"
        drawn += (
            f'<text class="{mark}" x="{box.x:.1f}" y="{first + number * LINE:.1f}" text-anchor="middle">'
            f"{_text(part)}</text>"
        )
    return drawn


def _label(arrow: Arrow) -> str:
    """On the page's own colour, so that a line under it does not cross the words."""
    labels = arrow.line.labels
    width = max(len(label) for label in labels) * CHARACTER + 8.0
    top = arrow.y - len(labels) * LINE / 2
    drawn = (
        f'<rect class="page" x="{arrow.x - width / 2:.1f}" y="{top:.1f}" width="{width:.1f}" '
        f'height="{len(labels) * LINE:.1f}"/>'
    )
    for number, label in enumerate(labels):
        drawn += (
            f'<text class="text" x="{arrow.x:.1f}" y="{top + number * LINE + 12:.1f}" text-anchor="middle" '
            f'font-size="12">{_text(label)}</text>'
        )
    return drawn


def _text(words: str) -> str:
    from html import escape  # noqa: PLC0415 - brings a table of all entities, which only who draws needs

    return escape(words)

"""A scheme as a Mermaid state diagram, for a README, a pull request, or whatever else shows Mermaid."""

from __future__ import annotations

from perdure.schemes.drawn import Counts, lines, scheme_of
from perdure.schemes.form import Group, Scheme, State, identifier

_RESERVED = frozenset({"end", "state", "note", "class", "classDef", "direction", "as", "default", "style", "click"})


def mermaid(process: Scheme | type, /, *, current: str | None = None, counts: Counts | None = None) -> str:
    """Text that Mermaid draws. ``current``: the state to light; ``counts``: how often each transition was taken.

    The same scheme gives the same text, line by line, so that a change of it is readable as a difference::

        print(mermaid(Vacation, current="review", counts={("draft", "review", "submit"): 3}))
    """
    scheme = scheme_of(process)
    text = ["stateDiagram-v2"]
    text += _declared(scheme, (), 1)
    text.append(f"    [*] --> {_id(scheme.initial)}")
    for line in lines(scheme, counts):
        label = " / ".join(line.labels)
        text.append(f"    {_id(line.source)} --> {_id(line.target)}" + (f" : {_safe(label)}" if label else ""))
    text += [f"    {_id(state.name)} --> [*]" for state in scheme.states if state.final]
    if current is not None:
        text.append("    classDef current fill:#fde68a,stroke:#b45309,stroke-width:3px,color:#451a03")
        text.append(f"    class {_id(scheme.state(current).name)} current")
    return "\n".join(text) + "\n"


def _declared(scheme: Scheme, groups: tuple[str, ...], depth: int) -> list[str]:
    """States under their groups; one that stands in none and has no title is declared by its lines."""
    indent = "    " * depth
    text: list[str] = []
    for group in scheme.groups:
        if group.groups == groups:
            text.append(f"{indent}{_titled(group)} {{")
            first = scheme.state(group.initial)
            start = first.name if first.groups == (*groups, group.name) else first.groups[len(groups) + 1]
            text.append(f"{indent}    [*] --> {_id(start)}")
            text += _declared(scheme, (*groups, group.name), depth + 1)
            text.append(f"{indent}}}")
    for state in scheme.states:
        if state.groups == groups and (groups or state.title or _id(state.name) != state.name):
            text.append(f"{indent}{_titled(state)}")
    return text


def _titled(state: State | Group) -> str:
    shown = state.title or state.name
    return f'state "{_safe(shown)}" as {_id(state.name)}' if shown != _id(state.name) else f"state {_id(state.name)}"


def _id(name: str) -> str:
    plain = identifier(name)
    return f"{plain}_" if plain in _RESERVED else plain


def _safe(text: str) -> str:
    """Text that ends no line, label or string of Mermaid's."""
    return text.replace('"', "'").replace(";", ",").replace("\n", " ").replace("#", "No. ")

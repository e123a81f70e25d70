"""The language that names sets of workflows: text to a ``Query``, which a store answers and Python can judge rows by.

``read.py`` is the way in for texts; code that knows what it wants says ``conditions.where(statuses=OPEN)`` and parses
nothing. See docs/internals/queries.md.
"""

"""Schemes: what a process is driven by, as pure values; their checks, notations and drawings.

``form`` is the internal form. Everything that makes one goes through ``build``; everything that reads one asks the
form, ``expressions`` and ``times``. ``declaration`` says what its names do.
"""

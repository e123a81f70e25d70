"""Sessions: the database connections of users' own, whichever driver or toolkit they come from.

One file for each kind, found by the class of the object at hand (``find.py``): no driver is imported before one of its
objects is met. All that an adapter does is run a statement, begin, commit and roll back. What is written through it is
the store's business (``store/within.py``) or ``foreign.py``'s.
"""

"""What a caller needs: the line to one app's database (store, journal, watcher, timers) and the verbs over it.

An executor is a client that also works, so ``runtime`` stands on this floor, never the other way round.
"""

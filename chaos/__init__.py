"""The chaos run: random workflows on real executors over a real database, everything failing, everything judged."""

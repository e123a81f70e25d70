"""The public face, async. ``perdure.sync`` is produced from it."""

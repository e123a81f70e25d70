"""The shared words: ids, statuses, records, writes. Imports nothing of the house but errors."""

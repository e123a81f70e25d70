"""Benchmarks: Perdure beside its peers, in one sitting, on one machine. `make bench`, or `python -m bench --help`."""

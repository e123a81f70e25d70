"""``python -m perdure``: the command line, where no ``perdure`` is on the path."""

from __future__ import annotations

from perdure.cli.main import main

if __name__ == "__main__":
    main()

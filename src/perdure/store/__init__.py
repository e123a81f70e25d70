"""Where facts rest: one narrow protocol (``base``), two hand-written dialects (``postgres``, ``sqlite``), ``open``."""

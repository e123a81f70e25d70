"""Generated tests here leave nothing behind in the checkout and assert no timing."""

from __future__ import annotations

import tempfile
from pathlib import Path

from hypothesis import HealthCheck, settings
from hypothesis.configuration import set_hypothesis_home_dir

# A .hypothesis directory at the root stops pytest where norecursedirs replaces its defaults.
set_hypothesis_home_dir(Path(tempfile.gettempdir()) / "perdure-hypothesis")
settings.register_profile("serde", database=None, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("serde")

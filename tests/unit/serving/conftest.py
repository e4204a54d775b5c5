"""Leave these tests out where the extra `serve` is not installed."""

from __future__ import annotations

from importlib.util import find_spec

LIBRARIES = ("fastapi", "uvicorn", "prometheus_client")

collect_ignore_glob = [] if all(map(find_spec, LIBRARIES)) else ["test_*.py"]

"""Hold the search page, and the headers that keep it from loading anything from elsewhere."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path

_FILE = Path(__file__).with_name("page.html")


@cache
def page() -> str:
    """Return the page, HTML: styles and script are in it."""
    return _FILE.read_text(encoding="utf-8")


@cache
def page_headers() -> Mapping[str, str]:
    """Return its headers: the script and the styles in it run, and nothing else loads."""
    script, style = _hash_of("script"), _hash_of("style")
    policy = (
        f"default-src 'none'; script-src {script}; style-src {style}; connect-src 'self'; "
        "img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
    return {"content-security-policy": policy, "referrer-policy": "no-referrer"}


def _hash_of(tag: str) -> str:
    (content,) = re.findall(f"<{tag}>(.*?)</{tag}>", page(), flags=re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
    return f"'sha256-{digest}'"

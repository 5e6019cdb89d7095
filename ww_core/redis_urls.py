"""How a URL of Redis says whether certificates are checked: one spelling that Celery, kombu and redis-py all read."""

from __future__ import annotations

from urllib.parse import parse_qsl, urlencode, urlsplit

_KEY = "ssl_cert_reqs"
_SPELLINGS = {"CERT_REQUIRED": "required", "CERT_OPTIONAL": "optional", "CERT_NONE": "none"}
"""Celery's names, and those that all three know."""


def with_checks(url: str) -> str:
    """A ``rediss://`` URL with ``ssl_cert_reqs`` in its query, ``required`` where it says nothing; others as they are.

    Celery refuses a URL without it, and redis-py Celery's own names. Raises ValueError.

    >>> with_checks("rediss://:secret@cache:6380/0?ssl_ca_certs=/etc/ca.pem")
    'rediss://:secret@cache:6380/0?ssl_ca_certs=%2Fetc%2Fca.pem&ssl_cert_reqs=required'
    """
    parts = urlsplit(url)
    if parts.scheme.lower() != "rediss":
        return url
    query = dict(parse_qsl(parts.query))
    wanted = query.get(_KEY, "required")
    query[_KEY] = _SPELLINGS.get(wanted, wanted)
    if query[_KEY] not in _SPELLINGS.values():
        raise ValueError(f"says {_KEY}={wanted}; it is one of {', '.join(_SPELLINGS.values())}")
    return parts._replace(query=urlencode(query)).geturl()

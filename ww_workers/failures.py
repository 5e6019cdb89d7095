"""What an error of the broker means for the user of a ``redis_url``."""

from __future__ import annotations

from ssl import SSLCertVerificationError

import redis

from ww_core.masking import mask


def line(error: BaseException) -> str:
    """The error in one line, without passwords."""
    text = " ".join(mask(str(error)).split())
    return text or type(error).__name__


def hint(error: BaseException) -> str:
    """The way out."""
    for cause in _causes(error):
        match cause:
            case redis.OutOfMemoryError():
                return "Redis is full: raise its maxmemory, or see what fills it"
            case redis.AuthenticationError():
                return "check user and password in redis_url"
            case redis.InvalidResponse():
                return "redis_url leads to something that is no Redis (or, for rediss://, to one without TLS)"
            case SSLCertVerificationError():
                return "name the file of its authorities in redis_url: ?ssl_ca_certs=FILE"
    return "is Redis running, and redis_url right?"


def _causes(error: BaseException | None) -> list[BaseException]:
    found: list[BaseException] = []
    while error is not None and error not in found:
        found.append(error)
        error = error.__cause__ or error.__context__
    return found

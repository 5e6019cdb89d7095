"""What the driver's errors mean for the user of a Neo4j server."""

from __future__ import annotations

from ssl import SSLCertVerificationError

from neo4j import exceptions as neo4j_errors
from neo4j.exceptions import DriverError, Neo4jError

from ww_core.errors import ConfigurationError, StoreUnavailable, WorldWeaverError

_MAX_CHARS = 200
_GONE = "Neo.ClientError.Statement.EntityNotFound"
_RACED = "Neo.ClientError.Schema.ConstraintValidationFailed"


def connection_lost(error: BaseException) -> bool:
    """The connection broke, or none could be made."""
    return isinstance(error, neo4j_errors.ServiceUnavailable | neo4j_errors.SessionExpired)


def outcome_unknown(error: BaseException) -> bool:
    """The connection broke during a commit."""
    return isinstance(error, neo4j_errors.IncompleteCommit)


def repeatable(error: BaseException) -> bool:
    """The server rolled the transaction back and it may succeed now: a deadlock, a node deleted or made meanwhile."""
    return isinstance(error, Neo4jError) and (error.is_retryable() or error.code in (_GONE, _RACED))


def translated(error: DriverError | Neo4jError, place: str, user: str) -> WorldWeaverError:
    """The error of ours, in one line without secrets."""
    where = f"Neo4j at {place}"
    code = error.code if isinstance(error, Neo4jError) else None
    match error:
        case neo4j_errors.AuthError() if code and code.endswith("AuthenticationRateLimit"):
            return ConfigurationError(
                f"{where} locked user {user!r} out after too many wrong passwords",
                hint="set neo4j_user and neo4j_password, and wait a few seconds",
            )
        case neo4j_errors.Forbidden():
            return ConfigurationError(
                f"{where} does not allow user {user!r} to do this: {_line(error)}",
                hint="give the user write and schema rights on the database",
            )
        case neo4j_errors.AuthError():
            return ConfigurationError(
                f"{where} refuses user {user!r}: {_line(error)}", hint="check neo4j_user and neo4j_password"
            )
        case neo4j_errors.ConfigurationError() | neo4j_errors.UnsupportedServerProduct():
            return ConfigurationError(f"{where} cannot be used: {_line(error)}", hint="check neo4j_uri")
        case _ if code == "Neo.ClientError.Database.DatabaseNotFound":
            return ConfigurationError(f"{where} has no such database: {_line(error)}", hint="check neo4j_database")
        case neo4j_errors.ConnectionAcquisitionTimeoutError():
            return busy(place)
        case neo4j_errors.ServiceUnavailable() if (untrusted := _certificate_error(error)) is not None:
            return StoreUnavailable(
                f"{where} shows a certificate that is not trusted: {untrusted.verify_message}",
                hint="name the file of its authorities in neo4j_ca_certs",
            )
        case neo4j_errors.ServiceUnavailable() if "routing information" in str(error):
            return StoreUnavailable(
                f"{where} does not say where to go: {_line(error)}",
                hint="is the server running, and for neo4j+s:// its certificate trusted (neo4j_ca_certs)?",
            )
        case neo4j_errors.ServiceUnavailable() | neo4j_errors.SessionExpired():
            return StoreUnavailable(f"{where} cannot be reached: {_line(error)}", hint="is the server running?")
        case _ if "needs to be restarted" in str(error):  # after a write that failed, on a full disk above all
            return StoreUnavailable(
                f"{where} has stopped its database: {_line(error)}",
                hint="free space on its disk, then restart it; what was acknowledged is kept",
            )
        case _ if "append transaction" in str(error):
            return StoreUnavailable(f"{where} cannot write: {_line(error)}", hint="is its disk full?")
        case _:
            return StoreUnavailable(f"{where} failed: {_line(error)}", hint="see the server's log")


def busy(place: str) -> StoreUnavailable:
    """All connections were in use for too long."""
    return StoreUnavailable(
        f"no connection to Neo4j at {place} became free in time",
        hint="raise neo4j_pool_size or neo4j_acquisition_timeout",
    )


def _certificate_error(error: BaseException | None) -> SSLCertVerificationError | None:
    """What the error came from, where it came from a certificate."""
    while error is not None and not isinstance(error, SSLCertVerificationError):
        error = error.__cause__ or error.__context__
    return error


def _line(error: DriverError | Neo4jError) -> str:
    text = error.message if isinstance(error, Neo4jError) else str(error)
    line = " ".join((text or type(error).__name__).split())
    return line if len(line) <= _MAX_CHARS else line[: _MAX_CHARS - 1] + "…"

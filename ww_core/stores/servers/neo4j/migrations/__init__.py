"""The schema of the Neo4j database, as numbered Cypher files that are applied once each and in order."""

from __future__ import annotations

from functools import cache
from importlib import resources

from neo4j import Session
from neo4j.exceptions import ClientError

from ww_core.errors import ConfigurationError

_VERSION = "MATCH (s:Schema {name: 'world-weaver'}) RETURN s.version"
_REACHED = """MERGE (s:Schema {name: 'world-weaver'})
  SET s.version = CASE WHEN coalesce(s.version, 0) < $version THEN $version ELSE s.version END"""
_THERE_ALREADY = "Neo.ClientError.Schema.EquivalentSchemaRuleAlreadyExists"
INDEX_SECONDS = 300
"""How long indexes may take to be filled."""


@cache
def scripts() -> tuple[tuple[str, ...], ...]:
    """The statements of every migration; the n-th one leads to schema version n."""
    files = (file for file in resources.files(__name__).iterdir() if file.name.endswith(".cypher"))
    return tuple(_statements(file.read_text(encoding="utf-8")) for file in sorted(files, key=lambda file: file.name))


def migrate(session: Session, place: str) -> None:
    """Bring the database to the newest schema. Several processes may do so at once: every statement can be repeated.

    Raises ConfigurationError where the database is of a newer version.
    """
    version = _version(session)
    if version > len(scripts()):
        raise ConfigurationError(
            f"Neo4j at {place} has schema version {version}; this World Weaver knows versions up to {len(scripts())}",
            hint="upgrade world-weaver, or choose another database",
        )
    for number in range(version, len(scripts())):
        for statement in scripts()[number]:
            _apply(session, statement)
        session.run("CALL db.awaitIndexes($seconds)", seconds=INDEX_SECONDS).consume()
        session.run(_REACHED, version=number + 1).consume()


def _apply(session: Session, statement: str) -> None:
    try:
        session.run(statement).consume()
    except ClientError as error:
        # for all its IF NOT EXISTS, where two processes make the same one at the same moment
        if error.code != _THERE_ALREADY:
            raise


def _version(session: Session) -> int:
    record = session.run(_VERSION).single()
    return 0 if record is None else int(record[0])


def _statements(script: str) -> tuple[str, ...]:
    lines = (line for line in script.splitlines() if not line.lstrip().startswith("//"))
    return tuple(statement.strip() for statement in "\n".join(lines).split(";") if statement.strip())

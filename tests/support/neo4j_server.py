"""A real Neo4j Community server for tests: fetched once with Maven, started on a free port with a home of its own."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from pathlib import Path
from tempfile import TemporaryDirectory

from neo4j import GraphDatabase
from neo4j.exceptions import AuthError, DriverError, Neo4jError

from tests.processes import ServerProcess, free_ports
from tests.support.certificates import can_make_certificates, make_certificate

VERSION = "5.26.0"
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "world-weaver-tests" / f"neo4j-{VERSION}"
PASSWORD = "only-for-tests"
START_SECONDS = 120.0
"""How long a server may take until it answers on Bolt; 15 s on an idle machine."""
BRIEF = "-XX:TieredStopAtLevel=1"
"""Java's quick compiler alone: 14 s of CPU time until it answers, not 22, and half of that of the tests that follow."""
FETCH_SECONDS = 900.0

_POM = f"""<project xmlns="http://maven.apache.org/POM/4.0.0"><modelVersion>4.0.0</modelVersion>
<groupId>tests</groupId><artifactId>neo4j-server</artifactId><version>1</version>
<dependencies><dependency>
<groupId>org.neo4j</groupId><artifactId>neo4j</artifactId><version>{VERSION}</version>
</dependency></dependencies></project>
"""
_CONF = """server.default_listen_address=127.0.0.1
server.bolt.listen_address=127.0.0.1:{port}
server.bolt.advertised_address=127.0.0.1:{port}
server.http.enabled=false
server.https.enabled=false
server.memory.heap.initial_size=512m
server.memory.heap.max_size=512m
server.memory.pagecache.size=128m
db.tx_log.rotation.retention_policy=keep_none
dbms.usage_report.enabled=false
"""
_BRIEF = "dbms.cypher.min_replan_interval=1h\n"
"""Each test adds a small graph to a small database, after which the server would plan most of its queries anew."""
_TLS = """server.bolt.tls_level=OPTIONAL
dbms.ssl.policy.bolt.enabled=true
dbms.ssl.policy.bolt.base_directory={directory}
dbms.ssl.policy.bolt.client_auth=NONE
"""


def missing() -> str | None:
    """Why no server can be started on this machine, None where one can."""
    absent = [tool for tool in ("java", "mvn") if shutil.which(tool) is None]
    if absent and not (_complete(CACHE) and "java" not in absent):
        return f"{' and '.join(absent)} not found: the Neo4j server needs Java 17 and is fetched with Maven"
    return None


def fetch(cache: Path = CACHE) -> Path:
    """The directory of the server's jars, filled by Maven on first use."""
    jars = cache / "lib"
    if _complete(cache):
        return jars
    cache.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=cache.parent) as directory:
        pom = Path(directory, "pom.xml")
        pom.write_text(_POM, encoding="utf-8")
        command = ["mvn", "-q", "-B", "-f", str(pom), "dependency:copy-dependencies"]
        done = subprocess.run(
            [*command, f"-DoutputDirectory={directory}/lib"],
            capture_output=True,
            text=True,
            timeout=FETCH_SECONDS,
            check=False,
        )
        if done.returncode:
            raise RuntimeError(f"Maven could not fetch Neo4j {VERSION}: {(done.stdout + done.stderr)[-2000:]}")
        shutil.rmtree(jars, ignore_errors=True)
        cache.mkdir(exist_ok=True)
        Path(directory, "lib").rename(jars)
    return jars


def _complete(cache: Path) -> bool:
    return (cache / "lib" / f"neo4j-{VERSION}.jar").exists()


class Neo4jServer(ServerProcess):
    """One server process. ``home`` holds its data and outlives it: ``start`` after ``kill`` finds everything again.

    Where openssl can make a certificate it takes encrypted connections as well. ``brief``: it lives
    for minutes and small graphs, and is never judged by the clock.
    """

    def __init__(self, home: Path, *, brief: bool = False) -> None:
        self.home = home
        self._options = [BRIEF] if brief else []
        (self.port,) = free_ports(1)
        self.password = PASSWORD
        self.certificate: Path | None = None
        (home / "conf").mkdir(parents=True, exist_ok=True)
        conf = _CONF.format(port=self.port) + (_BRIEF if brief else "")
        if can_make_certificates():
            _, self.certificate = make_certificate(home / "certificates")
            conf += _TLS.format(directory=home / "certificates")
        (home / "conf" / "neo4j.conf").write_text(conf, encoding="utf-8")

    @property
    def uri(self) -> str:
        return f"bolt://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Return when the server answers and has its password."""
        jars = fetch()
        log = (self.home / "console.log").open("ab")
        home = str(self.home)
        self._process = subprocess.Popen(
            [
                *("java", "-Xms512m", "-Xmx512m", "-XX:+UseParallelGC", *self._options, "-cp", f"{jars}/*"),
                *("org.neo4j.server.CommunityEntryPoint", f"--home-dir={home}", f"--config-dir={home}/conf"),
            ],
            stdout=log,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
        )
        log.close()
        try:
            self._wait()
        except BaseException:
            self.kill()
            raise

    def _wait(self) -> None:
        deadline = time.monotonic() + START_SECONDS
        while True:
            assert self._process is not None
            if self._process.poll() is not None:
                raise RuntimeError(f"Neo4j ended with {self._process.returncode}: {self._console()}")
            try:
                self._set_password()
                return
            except (DriverError, Neo4jError) as error:
                if time.monotonic() > deadline:
                    raise RuntimeError(f"Neo4j did not answer: {error}\n{self._console()}") from error
            time.sleep(0.2)

    def _set_password(self) -> None:
        options = {"connection_timeout": 5.0, "max_transaction_retry_time": 0.0}
        with GraphDatabase.driver(self.uri, auth=("neo4j", self.password), **options) as driver:
            try:
                driver.execute_query("RETURN 1")
                return
            except AuthError:
                pass
        with GraphDatabase.driver(self.uri, auth=("neo4j", "neo4j"), **options) as driver:
            driver.execute_query(
                "ALTER CURRENT USER SET PASSWORD FROM 'neo4j' TO $password",
                password=self.password,
                database_="system",
            )

    def _console(self) -> str:
        return (self.home / "console.log").read_text(encoding="utf-8", errors="replace")[-2000:]

    def outlive(self) -> None:
        """Let the server live on when this process ends; who knows its pid ends it."""
        assert self._process is not None
        self._process.returncode = 0  # subprocess would complain at exit

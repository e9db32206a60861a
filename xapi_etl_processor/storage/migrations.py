"""Apply the numbered .sql files of `schema/`: for people and pipelines, never at event time.

clickhouse-migrations does the work: it is maintained, takes plain SQL and uses the same driver. It
is not in the deployment package, so it is imported inside functions.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from xapi_etl_processor import secrets
from xapi_etl_processor.clickhouse_client import CONNECT_SECONDS, REPLY_SECONDS
from xapi_etl_processor.config import Settings

if TYPE_CHECKING:
    from clickhouse_migrations.clickhouse_cluster import ClickhouseCluster

SCHEMA = Path(__file__).parent / "schema"


def migrate(settings: Settings) -> list[str]:
    """Create the database, or bring it to the newest schema; returns the files that were applied.

    Safe to repeat. Raises MigrationException if an applied file was edited, and the driver's
    errors.
    """
    from clickhouse_migrations.clickhouse_cluster import ClickhouseCluster

    cluster = ClickhouseCluster(
        settings.clickhouse_host,
        settings.clickhouse_username,
        secrets.password(settings),
        str(settings.clickhouse_port),
        secure=settings.clickhouse_secure,
        ca_cert=settings.clickhouse_ca_certs or None,
        connect_timeout=CONNECT_SECONDS,
        query_timeout=REPLY_SECONDS,
        compression="lz4",
    )
    database = settings.clickhouse_database
    before = _applied(cluster, database)
    cluster.migrate(database, SCHEMA)
    names = {int(path.name.split("_")[0]): path.name for path in sorted(SCHEMA.glob("*.sql"))}
    return [names[version] for version in sorted(_applied(cluster, database) - before)]


def _applied(cluster: ClickhouseCluster, database: str) -> set[int]:
    return {row.version for row in cluster.status(database, SCHEMA) if row.state == "applied"}

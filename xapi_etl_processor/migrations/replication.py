"""Changes the statements of the migrations for a cluster of replicas."""

from __future__ import annotations

import re

_NAME = r"[\w.`]+"


def on_cluster(statement: str, cluster: str) -> str:
    """The statement, changed to run on every server of the cluster and to replicate its table.

    The engine gets no path: ClickHouse's default, `/clickhouse/tables/{uuid}/{shard}`, stays right
    when tables are exchanged. Anything but CREATE, ALTER, DROP and EXCHANGE is left as it is: what
    one replica inserts, the others copy.
    """
    there = f"ON CLUSTER '{cluster}'"
    for pattern, replacement in (
        (rf"^CREATE TABLE IF NOT EXISTS {_NAME}$", rf"\g<0> {there}"),
        (r"^ENGINE = (\w*MergeTree)\b", r"ENGINE = Replicated\1"),
        (rf"^(CREATE OR REPLACE VIEW {_NAME}) AS$", rf"\1 {there} AS"),
        (rf"^ALTER TABLE {_NAME}$", rf"\g<0> {there}"),
        (rf"^EXCHANGE TABLES {_NAME} AND {_NAME}", rf"\g<0> {there}"),
        # SYNC: the name, and its place in Keeper, are free at once.
        (rf"^DROP TABLE {_NAME}", rf"\g<0> {there} SYNC"),
        (r"\bFROM (system\.processes)\b", rf"FROM clusterAllReplicas('{cluster}', \1)"),
    ):
        statement = re.sub(pattern, replacement, statement, flags=re.MULTILINE)
    return statement

"""How near do the views come to what simulated viewers watched, player by player?

    python -m benchmarks.players [--viewers N]

Prints a table: for each player of tests/support/players.py the bias (all minutes by the views,
against the truth) and the worst error of a viewer in seconds, too high and too low. The same for
the idea of Open edX's Aspects (`fact_watched_video_segments` of aspects-dbt): each `played` with
the first statement behind it that ends playback.
"""

import argparse
import json
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory

from chdb.state.sqlitelike import Connection

from local.clickhouse_server import ClickHouseServer
from tests.support.players import PLAYERS, Told, tell
from tests.support.watched import Watched
from xapi_etl_processor.base.config import Settings
from xapi_etl_processor.migrations.migrate import migrate

VIEWS = (
    "SELECT user_id, minutes_watched * 60 FROM {database}.viewer_progress"
    " WHERE section_id = {section}"
)

# Aspects knows no sessions, rounds positions to whole seconds, and a segment must go forwards.
ASPECTS = """
SELECT user_id, arrayReduce('intervalLengthSum', groupArray(started), groupArray(ended))
FROM (
    SELECT user_id, toInt32(video_time) AS started, argMin(end_at, end_time) AS ended
    FROM (SELECT * FROM video_statements WHERE verb = 'played' AND section_id = {section}) AS p
    LEFT JOIN (
        SELECT user_id AS who, timestamp AS end_time,
            toInt32(ifNull(if(verb = 'seeked', video_seek_from, video_time), 0)) AS end_at
        FROM video_statements
        WHERE section_id = {section} AND verb IN ('paused', 'seeked', 'completed', 'terminated')
    ) AS e ON user_id = who
    WHERE end_time > timestamp AND video_time IS NOT NULL
    GROUP BY user_id, timestamp, event_id, started
)
WHERE ended > started
GROUP BY user_id
"""


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--viewers", type=int, default=60)
    options = parser.parse_args()
    with TemporaryDirectory() as folder:
        server = ClickHouseServer(Path(folder), user="default", password="").start()
        settings = Settings("127.0.0.1", server.port)
        migrate(settings)
        here = settings.clickhouse_database
        server.engine.query(f"USE {here}")
        ways = {"views": VIEWS.format(database=here, section="{section}"), "Aspects": ASPECTS}
        print("| player |" + "".join(f" {way}: bias | too high | too low |" for way in ways))
        print("|---|" + "---:|" * 3 * len(ways))
        for section, player in enumerate(PLAYERS, 1):
            told = tell(Watched(server, here, section), player, options.viewers)
            cells = [
                _compared(_ask(server.engine, sql.format(section=section)), told)
                for sql in ways.values()
            ]
            print(f"| {player.name} | {' | '.join(cells)} |", flush=True)
        server.stop()


def _ask(engine: Connection, sql: str) -> dict[str, float]:
    answer = engine.query(sql, "JSONCompactEachRow").bytes().decode()
    return dict(json.loads(line) for line in answer.splitlines())


def _compared(found: Mapping[str, float], told: Told) -> str:
    """The bias, and the worst errors."""
    errors = [found.get(viewer, 0) - told.seconds(viewer) for viewer in told.watched]
    bias = f"{sum(errors) / sum(map(told.seconds, told.watched)):+.1%}"
    bias = bias if float(bias[:-1]) else "0.0%"
    return f"{bias} | {max(*errors, 0):.0f} s | {-min(*errors, 0):.0f} s"


if __name__ == "__main__":
    main()

-- The views that people read with; `migrate` makes all of them anew each time. Each is a plain view:
-- what is replayed, voided or comes late counts at once.
--
-- They must run on every ClickHouse of docs/clickhouse.md (`make engines`). So:
-- no tuple leaves a view, only arrays of tuples do: versions 25.5 and 25.8 take an element of it for a
--   subcolumn, which the view does not have (code 47);
-- no alias has the name of a column that it is made of: version 23.10 and the old analyzer take it
--   for the alias itself (code 179);
-- no function is younger than version 23.10;
-- days are Date32: toDate and toMonday of a clock in 1904 or 2203 give another day of this century;
-- a view that aggregates pins the settings that would change it, since a reader's profile may have them.

-- Each statement once, without those that were voided.
CREATE OR REPLACE VIEW video_statements AS
SELECT *, played_stretches FROM video_events FINAL
WHERE event_id NOT IN (SELECT voided_id FROM voided_statements);

-- What was watched. docs/watching.md says what each number means, with the rules that these views
-- follow.
--
-- A filter on section_id, section or video_url reaches the table's key through all of them, since
-- they are built by grouping, without joins.

-- A session of a viewer at a video, and what was played in it.
CREATE OR REPLACE VIEW video_sessions AS
WITH
    -- In the order of their time: where play that went on up to this statement came to, where it
    -- goes on from, and whether it does (1), does not (0), or as before (2).
    arraySort(groupArrayIf(
        (timestamp, event_id, up_to, on_from, goes_on),
        timestamp_source NOT IN ('key', 'none') AND (up_to >= 0 OR goes_on != 2)
    )) AS steps,
    arrayFill(step -> step.5 != 2, steps).5 AS playing,
    maxMap(played_stretches.1, played_stretches.2) AS longest,
    sumMapIf([assumeNotNull(video_length)], [1], video_length > 0) AS counted_lengths
SELECT
    section_id, section, video_url, home_page, user_id, session,
    argMaxIf(video_title, (timestamp, event_id), video_title != '') AS title,
    max(platform) AS platform,
    count() AS statements,
    minIf(timestamp, timestamp_source != 'none') AS first_at,
    maxIf(timestamp, timestamp_source != 'none') AS last_at,
    arrayZip(longest.1, longest.2) AS sent_stretches,
    arrayFilter(
        stretch -> stretch.2 > stretch.1,
        arrayMap(
            (this, next, on) -> if(on = 1 AND this.4 >= 0, (this.4, next.3), (0., 0.)),
            arrayPopBack(steps), arrayPopFront(steps), arrayPopBack(playing)
        )
    ) AS derived_stretches,
    if(empty(sent_stretches), derived_stretches, sent_stretches) AS stretches,
    groupArrayIf((up_to, on_from), is_seek AND up_to >= 0 AND on_from >= 0) AS seeks,
    counted_lengths.1 AS length_values,
    counted_lengths.2 AS length_counts,
    max(verb = 'completed' OR ifNull(completion, false)) AS is_completed,
    ifNull(max(completion_threshold), 0) AS threshold,
    argMaxOrNullIf(position, (timestamp, event_id), position >= 0) AS stopped_at,
    greatest(max(up_to), max(on_from), max(arrayMax(played_stretches.2)), 0) AS furthest
FROM (
    SELECT
        *,
        if(session_id != '', session_id, registration) AS session,
        verb IN ('seeked', 'skipped') AS is_seek,
        multiIf(
            verb IN ('played', 'play', 'resumed'), 1,
            verb IN ('paused', 'pause', 'stopped', 'suspended', 'terminated', 'initialized'), 0,
            2
        ) AS goes_on,
        round(ifNull(if(is_seek, video_seek_from, video_time), -1), 3) AS up_to,
        round(ifNull(if(is_seek, video_seek_to, video_time), -1), 3) AS on_from,
        multiIf(
            on_from >= 0, on_from,
            notEmpty(played_stretches), played_stretches[-1].2,
            -1
        ) AS position
    FROM video_statements
)
GROUP BY section_id, section, video_url, home_page, user_id, session
SETTINGS prefer_column_name_to_alias = 0, aggregate_functions_null_for_empty = 0;

-- A viewer of a video, with each session: its day, its statements, and the stretches played. The
-- views below are made of it.
CREATE OR REPLACE VIEW video_viewers AS
SELECT
    section_id, section, video_url, title, video_length, length_is_known,
    viewer.1 AS home_page,
    viewer.2 AS user_id,
    viewer.3 AS first_seen,
    viewer.4 AS last_seen,
    arrayMap(
        session -> (
            session.1,
            session.2,
            arrayMap(
                stretch -> (stretch.1, least(stretch.2, video_length)),
                arrayFilter(stretch -> stretch.1 < video_length, session.3)
            )
        ),
        viewer.5
    ) AS sessions,
    arrayFlatten(sessions.3) AS stretches,
    round(arrayReduce('intervalLengthSum', stretches.1, stretches.2), 3) AS seconds_watched,
    round(arraySum(stretch -> stretch.2 - stretch.1, stretches), 3) AS seconds_played,
    if(length_is_known, seconds_watched / video_length, NULL) AS share_watched,
    viewer.6 OR ifNull(share_watched >= viewer.7, false) AS is_completed,
    -- In some versions of ClickHouse, least(NULL, x) is x.
    if(isNull(viewer.8), NULL, least(viewer.8, video_length)) AS stopped_at,
    least(viewer.9, video_length) AS reached,
    viewer.10 AS seeks
FROM (
    WITH
        sumMap(one.values_of_viewer, one.counts_of_viewer) AS of_video,
        arraySort(length -> (-length.2, -length.1), arrayZip(of_video.1, of_video.2))
            AS most_frequent
    SELECT
        section_id, section, video_url,
        argMaxIf(one.title, one.last_at, one.title != '') AS title,
        notEmpty(most_frequent) AS length_is_known,
        if(length_is_known, most_frequent[1].1, max(one.furthest)) AS video_length,
        groupArray((
            home_page, user_id, one.first_at, one.last_at, one.sessions, one.is_completed,
            if(one.threshold > 0, one.threshold, 1), one.stopped_at, one.furthest, one.seeks
        )) AS viewers
    FROM (
        WITH sumMap(s.length_values, s.length_counts) AS of_viewer
        SELECT
            section_id, section, video_url, home_page, user_id,
            argMaxIf(s.title, (s.last_at, session), s.title != '') AS title,
            min(s.first_at) AS first_at,
            max(s.last_at) AS last_at,
            groupArray((toDate32(s.first_at), s.statements, s.stretches)) AS sessions,
            max(s.is_completed) AS is_completed,
            max(s.threshold) AS threshold,
            argMax(s.stopped_at, (s.last_at, session)) AS stopped_at,
            max(s.furthest) AS furthest,
            groupArrayArray(s.seeks) AS seeks,
            of_viewer.1 AS values_of_viewer,
            of_viewer.2 AS counts_of_viewer
        FROM video_sessions AS s
        GROUP BY section_id, section, video_url, home_page, user_id
    ) AS one
    GROUP BY section_id, section, video_url
)
ARRAY JOIN viewers AS viewer
SETTINGS prefer_column_name_to_alias = 0, aggregate_functions_null_for_empty = 0;

CREATE OR REPLACE VIEW viewer_progress AS
SELECT
    section_id, section, video_url, title, home_page, user_id, video_length,
    length(v.sessions) AS sessions,
    v.seconds_watched / 60 AS minutes_watched,
    v.seconds_played / 60 AS minutes_played,
    share_watched, reached, is_completed, stopped_at, first_seen, last_seen
FROM video_viewers AS v
SETTINGS prefer_column_name_to_alias = 0, aggregate_functions_null_for_empty = 0;

CREATE OR REPLACE VIEW video_engagement AS
SELECT
    section_id, section, video_url,
    any(v.title) AS title,
    any(v.video_length) AS video_length,
    count() AS viewers,
    sum(length(v.sessions)) AS sessions,
    countIf(v.is_completed) AS completions,
    round(sum(v.seconds_watched), 3) / 60 AS minutes_watched,
    round(sum(v.seconds_played), 3) / 60 AS minutes_played,
    avg(v.share_watched) AS average_share,
    toDate32(min(v.first_seen)) AS first_day,
    toDate32(max(v.last_seen)) AS last_day
FROM video_viewers AS v
GROUP BY section_id, section, video_url
SETTINGS prefer_column_name_to_alias = 0, aggregate_functions_null_for_empty = 0;

-- A bucket is a hundredth of the length. Whoever plays its middle plays it.
CREATE OR REPLACE VIEW video_retention AS
SELECT
    section_id, section, video_url, video_length, bucket,
    bucket * video_length / 100 AS from_second,
    (bucket + 1) * video_length / 100 AS to_second,
    countIf(nth = 1) AS viewers,
    countIf(nth = 2) AS rewatchers,
    countIf(nth > 0) AS plays
FROM (
    SELECT
        section_id, section, video_url,
        any(one.video_length) AS video_length,
        -- One of each bucket, as the zeroth, so that a bucket that nobody played is there too.
        arrayConcat(range(toUInt8(100)), groupArrayArray(one.played)) AS buckets,
        arrayConcat(arrayWithConstant(100, toUInt32(0)), groupArrayArray(one.nth)) AS nths
    FROM (
        SELECT
            section_id, section, video_url, video_length,
            arrayFlatten(arrayMap(
                stretch -> range(
                    toUInt8(ceil(stretch.1 / video_length * 100 - 0.5)),
                    toUInt8(ceil(stretch.2 / video_length * 100 - 0.5))
                ),
                stretches
            )) AS played,
            arrayEnumerateUniq(played) AS nth
        FROM video_viewers
        WHERE video_length > 0
    ) AS one
    GROUP BY section_id, section, video_url
)
ARRAY JOIN buckets AS bucket, nths AS nth
GROUP BY section_id, section, video_url, video_length, bucket
SETTINGS prefer_column_name_to_alias = 0, aggregate_functions_null_for_empty = 0;

CREATE OR REPLACE VIEW video_dropoff AS
SELECT
    section_id, section, video_url, video_length,
    toUInt8(least(floor(assumeNotNull(stopped_at) / video_length * 100), 99)) AS bucket,
    bucket * video_length / 100 AS from_second,
    (bucket + 1) * video_length / 100 AS to_second,
    count() AS viewers,
    countIf(is_completed) AS completed
FROM video_viewers
WHERE video_length > 0 AND stopped_at IS NOT NULL
GROUP BY section_id, section, video_url, video_length, bucket
SETTINGS prefer_column_name_to_alias = 0, aggregate_functions_null_for_empty = 0;

CREATE OR REPLACE VIEW video_seeks AS
SELECT
    section_id, section, video_url, video_length,
    toUInt8(least(floor(seek.1 / video_length * 100), 99)) AS from_bucket,
    toUInt8(least(floor(seek.2 / video_length * 100), 99)) AS to_bucket,
    from_bucket * video_length / 100 AS from_second,
    to_bucket * video_length / 100 AS to_second,
    count() AS seeks,
    uniqExact(home_page, user_id) AS viewers
FROM video_viewers AS v
ARRAY JOIN v.seeks AS seek
WHERE video_length > 0
GROUP BY section_id, section, video_url, video_length, from_bucket, to_bucket
SETTINGS prefer_column_name_to_alias = 0, aggregate_functions_null_for_empty = 0;

-- A session counts on the day on which it began.
CREATE OR REPLACE VIEW section_daily AS
SELECT
    section_id, section, day,
    uniqExact(home_page, user_id) AS viewers,
    sum(one.sessions) AS sessions,
    sum(one.statements) AS statements,
    round(sum(arrayReduce('intervalLengthSum', one.stretches.1, one.stretches.2)), 3) / 60
        AS minutes_watched,
    round(sum(arraySum(stretch -> stretch.2 - stretch.1, one.stretches)), 3) / 60
        AS minutes_played
FROM (
    SELECT
        section_id, section, video_url, home_page, user_id,
        session.1 AS day,
        count() AS sessions,
        sum(session.2) AS statements,
        groupArrayArray(session.3) AS stretches
    FROM video_viewers AS v
    ARRAY JOIN v.sessions AS session
    GROUP BY section_id, section, video_url, home_page, user_id, day
) AS one
-- 1970-01-01 stands for a session without a usable time.
WHERE day != '1970-01-01'
GROUP BY section_id, section, day
SETTINGS prefer_column_name_to_alias = 0, aggregate_functions_null_for_empty = 0;

-- How far the stretches that a producer sends, and those derived from its statements, disagree.
CREATE OR REPLACE VIEW stretch_disagreement AS
SELECT
    section_id, section, home_page, platform,
    count() AS sessions,
    round(sum(s.sent), 3) AS seconds_sent,
    round(sum(s.derived), 3) AS seconds_derived,
    round(sum(2 * s.either - s.sent - s.derived), 3) AS seconds_in_one_only,
    seconds_in_one_only / round(sum(s.either), 3) AS disagreement
FROM (
    SELECT
        section_id, section, home_page, platform,
        arrayReduce('intervalLengthSum', sent_stretches.1, sent_stretches.2) AS sent,
        arrayReduce('intervalLengthSum', derived_stretches.1, derived_stretches.2) AS derived,
        arrayConcat(sent_stretches, derived_stretches) AS both,
        arrayReduce('intervalLengthSum', both.1, both.2) AS either
    FROM video_sessions
    WHERE notEmpty(sent_stretches) AND notEmpty(derived_stretches)
) AS s
GROUP BY section_id, section, home_page, platform
SETTINGS prefer_column_name_to_alias = 0, aggregate_functions_null_for_empty = 0;

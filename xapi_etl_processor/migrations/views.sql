-- The views that people read with; `migrate` makes all of them anew each time. Each is a plain view:
-- what is replayed, voided or comes late counts at once.
--
-- They must run on every ClickHouse of docs/clickhouse.md (`make engines`). So:
-- no tuple leaves a view, only arrays of tuples do: versions 25.5 and 25.8 take an element of it for a
--   subcolumn, which the view does not have (code 47);
-- no alias has the name of a column that it is made of: version 23.10 and the old analyzer take it
--   for the alias itself (code 179);
-- no function is younger than version 23.10;
-- no alias of this SELECT is used inside a lambda: it would be worked out for each element;
-- days are Date32: toDate and toMonday of a clock in 1904 or 2203 give another day of this century;
-- a SELECT with lambdas that reads from another may fail, unless the other groups or has an ARRAY JOIN:
--   the old analyzer mixes up their lambdas (code 352);
-- what many expressions use is a column of a subquery: each use of an alias makes planning slower;
-- a view that aggregates pins the settings that would change it, since a reader's profile may have them.

-- Each statement once, without those that were voided. One whose id came with two timestamps is two
-- here: the timestamp is part of the table's key.
CREATE OR REPLACE VIEW video_statements AS
SELECT *, played_stretches FROM video_events FINAL
WHERE event_id NOT IN (SELECT voided_id FROM voided_statements);

-- What was watched. docs/watching.md says what each number means, with the rules that these views
-- follow.
--
-- A filter on section_id, section or video_url reaches the table's key through all of them, since
-- they are built by grouping, without joins.

-- Statements with the stretches that each sends, and why others that it sends cannot be read.
--
-- A stretch is one number here, since that sorts several times as fast as a pair: the millisecond at
-- which it begins, times 2^32, plus the one at which it ends.
CREATE OR REPLACE VIEW statement_stretches AS
WITH
    '\\s*(?:(?:[0-9]+:)?[0-9]+:[0-5]?[0-9]|[0-9]+)(?:[.,][0-9]*)?\\s*' AS point,
    '\\s*(?:(?:[0-9]+:)?[0-9]+:[0-5]?[0-9]|[0-9]+)(?:[.][0-9]*)?\\s*' AS plain,
    -- `played_stretches` is right for the profile's notation, except for these.
    ifNull(video_played_segments != '' AND (
        empty(played_stretches)
        OR length(played_stretches) != countSubstrings(video_played_segments, '[.]')
        OR arrayMax(played_stretches.2) > if(video_length > 0, least(2 * video_length, 4e6), 4e6)
    ), false) AS is_odd,
    -- In the profile's notation, from[.]to[,]from[.]to: also 0-30, 0;30 and 0-30,40-50. Seconds may be
    -- clocks, 1:02:05, and have a comma, 2,5, where it does not separate stretches.
    arrayMap(
        sent -> multiIf(
            position(sent, '[.]') > 0, sent,
            match(sent, concat('^', point, '[-;]', point, '$')),
            replaceRegexpOne(sent, '[-;]', '[.]'),
            match(
                sent,
                concat('^', plain, '-', plain, '(?:(?:,|\\[,\\])', plain, '-', plain, ')*$')
            ),
            replaceAll(replaceRegexpAll(sent, '\\[,\\]|,', '[,]'), '-', '[.]'),
            sent
        ),
        -- Work on the elements of an array costs nothing where it is empty, as here in most rows.
        if(is_odd, [video_played_segments], [])
    ) AS notations,
    -- The points of each stretch in seconds; -1 is no number, and -2 is not there.
    arrayMap(
        stretch -> arrayMap(
            text -> multiIf(
                text = '', -2.,
                match(text, '^[0-9+.,eE][-0-9+.,eE]*$'),
                ifNull(toFloat64OrNull(replaceOne(text, ',', '.')), -1.),
                match(text, concat('^', point, '$')),
                arraySum(
                    (part, nth) -> ifNull(toFloat64OrNull(replaceOne(part, ',', '.')), 0.)
                        * pow(60., nth - 1),
                    arrayReverse(splitByChar(':', text)),
                    arrayEnumerate(splitByChar(':', text))
                ),
                -1.
            ),
            arrayMap(text -> trim(BOTH ' \t\r\n' FROM text), splitByString('[.]', stretch))
        ),
        arrayFlatten(arrayMap(sent -> splitByString('[,]', sent), notations))
    ) AS points,
    -- From and to. The last one may be open: it ends where the statement is or, at `completed`, at the
    -- length.
    ifNull(if(verb IN ('seeked', 'skipped'), video_seek_from, video_time), -1.) AS sent_at,
    arrayMap(
        (ends, from_last) -> (
            if(length(ends) = 2, ends[1], -1.),
            multiIf(
                length(ends) != 2, -1.,
                ends[2] != -2, ends[2],
                from_last > 1 OR ends[1] < 0, -2.,
                sent_at >= ends[1], sent_at,
                verb = 'completed' AND ifNull(video_length, 0) > ends[1], assumeNotNull(video_length),
                -2.
            )
        ),
        points, arrayReverse(arrayEnumerate(points))
    ) AS pairs,
    -- What ends past a hundred lengths can only be in thousandths of a second.
    if(
        ifNull(
            video_length > 0
            AND arrayMax(
                arrayMap(pair -> if(pair.1 >= 0 AND isFinite(pair.2), pair.2, 0.), pairs)
            ) BETWEEN 100 * video_length AND 1000 * video_length,
            false
        ),
        1000., 1.
    ) AS parts,
    arrayMap(
        (pair, unit) -> (
            pair.1 / unit,
            pair.2 / unit,
            multiIf(
                pair.1 < 0 OR pair.2 = -1 OR NOT isFinite(pair.2), 'not understood',
                pair.2 < 0, 'open',
                pair.2 < pair.1, 'reversed',
                ifNull(video_length > 0 AND pair.2 / unit > 2 * video_length, false),
                'past the length',
                ''
            )
        ),
        pairs, arrayWithConstant(length(pairs), parts)
    ) AS judged
SELECT
    section_id, section, video_url, home_page, user_id, platform, session_id, registration,
    attempt_guid, event_id, timestamp, timestamp_source, row_version, source_file, source_line, verb,
    video_title, video_time, video_length, video_seek_from, video_seek_to, speed, speed_from,
    completion, completion_threshold, video_played_segments,
    arrayConcat(
        if(is_odd, [], arrayMap(
            pair -> bitShiftLeft(toUInt64(pair.1 * 1000 + 0.5), 32) + toUInt64(pair.2 * 1000 + 0.5),
            played_stretches
        )),
        arrayMap(
            pair -> bitShiftLeft(toUInt64(least(pair.1, 4294967.) * 1000 + 0.5), 32)
                + toUInt64(least(pair.2, 4294967.) * 1000 + 0.5),
            arrayFilter(pair -> pair.3 = '' AND pair.2 > pair.1, judged)
        )
    ) AS stretches_sent,
    arrayDistinct(arrayFilter(reason -> reason != '', judged.3)) AS stretches_unread
FROM video_statements
SETTINGS prefer_column_name_to_alias = 0;

{# The stretches that follow from positions and the clock, `derived`, worked out of `statements`. #}
{% macro stretches_of(statements) %}
    -- Statements that say something of where it was or whether it played.
    arrayFilter(
        s -> bitTest(s.6, 0) AND (s.3 >= 0 OR s.4 >= 0 OR s.5 != 2 OR bitTest(s.6, 1)),
        {{ statements }}
    ) AS steps,
    arrayFill(on -> on != 2, steps.5) AS states,
    arrayMap(on -> on = 1, arrayPopBack(states)) AS plays,
    -- Who does not play stays where the last position was.
    arrayPopBack(arrayFill(
        at -> at != -7,
        arrayMap(
            (at, kind, was) -> if(at >= 0 OR bitTest(kind, 1) OR was = 1, at, -7.),
            steps.4, steps.6, arrayPopBack(arrayPushFront(states, 1))
        )
    )) AS starts,
    arrayPopFront(steps.3) AS ends,
    arrayMap(
        (this, next) -> toFloat64(bitShiftRight(next, 80) - bitShiftRight(this, 80)) / 1000,
        arrayPopBack(steps.1), arrayPopFront(steps.1)
    ) AS gaps,
    arrayMap(
        (this, next) -> greatest(this, next),
        arrayPopBack(arrayFill(pace -> pace > 0, steps.7)), arrayPopFront(steps.7)
    ) AS speeds,
    arrayMap(kind -> bitTest(kind, 3), arrayPopFront(steps.6)) AS begins,
    -- Where one of the two does not say where it was, the clock does, for an hour.
    arrayFilter(move -> move.2 > move.1, arrayMap(
        (on, start, end, took, speed, anew) -> (
            if(
                on AND start < 0 AND end >= 0 AND took <= 3600 AND NOT anew,
                greatest(end - took * if(speed > 0, speed, 1.), 0.), start
            ),
            multiIf(
                NOT on, -1.,
                end < 0 AND start >= 0 AND took <= 3600 AND NOT anew,
                round(start + took * if(speed > 0, speed, 1.), 3),
                start < 0 AND (took > 3600 OR anew), -1.,
                end
            ),
            took, speed, anew
        ),
        plays, starts, ends, gaps, speeds, begins
    )) AS moves,
    -- As much of it as the clock allows. The usual speed is that of most, from 1 to 2.
    arraySort(arrayMap(
        move -> (move.2 - move.1) / move.3,
        arrayFilter(
            move -> move.3 >= 5 AND NOT move.5 AND move.2 - move.1 <= move.3 * 2.2 + 2, moves
        )
    )) AS rates,
    greatest(1., least(2., if(empty(rates), 1., rates[intDiv(length(rates) + 1, 2)]))) AS usual,
    arrayFilter(stretch -> stretch.2 > stretch.1, arrayMap(
        (move, usually) -> (
            move.1,
            multiIf(
                move.5 AND move.3 > (move.2 - move.1) * 2 + 10, move.1,
                move.3 > move.2 - move.1 + 43200, move.1,
                move.2 - move.1 <= 2 + move.3 * 1.1 * multiIf(
                    move.4 > 0, move.4,
                    move.5 OR NOT reports_seeks, usually,
                    2
                ), move.2,
                move.5 AND reports_seeks, move.1,
                round(move.1 + move.3 * if(move.4 > 0, move.4, usually), 3)
            )
        ),
        moves, arrayWithConstant(length(moves), usual)
    )) AS derived
{% endmacro %}
-- A session of a viewer at a video, with its statements in order. `session` is a hash of its id.
--
-- Statements are tuples here:
--   1 place in the order of all: milliseconds, then the object, then its line; 2 its stretches;
--   3 where play that went on up to it came to, in seconds, -1 if unknown; 4 where it goes on from;
--   5 whether it goes on: 1 yes, 0 no, 2 as before; 6 its kind; 7 its speed, 0 if unknown.
-- Its kind has these bits: 0 it has a time of its own, 1 it is a seek, 2 it has no time at all, 3 it
-- begins a new playback, 4 it names the player's session.
CREATE OR REPLACE VIEW video_visits AS
WITH
    numbered AS (
        SELECT
            section_id, section, video_url, home_page, user_id, event_id, video_title, platform,
            video_length, completion, completion_threshold, verb, stretches_sent, session_id,
            multiIf(
                session_id != '', cityHash64(session_id),
                registration != '', cityHash64(registration),
                0
            ) AS named,
            -- The registration's hash in the upper half, the attempt's in the lower.
            bitOr(
                bitShiftLeft(if(registration != '', cityHash64(registration), 0), 32),
                bitShiftRight(if(attempt_guid != '', cityHash64(attempt_guid), 0), 32)
            ) AS keys,
            -- 2^43 ms before 1970 is 0. Objects in the order in which they were uploaded; those of
            -- one second in any.
            bitShiftLeft(toUInt128(toUnixTimestamp64Milli(timestamp) + 8796093022208), 80)
                + bitShiftLeft(toUInt128(intDiv(row_version, 1000) % 4294967296), 48)
                + bitShiftLeft(toUInt128(cityHash64(source_file) % 1048576), 28)
                + source_line % 268435456 AS place,
            verb IN ('seeked', 'skipped') AS is_seek,
            multiIf(
                verb IN ('played', 'play', 'resumed'), 1,
                verb IN ('paused', 'pause', 'stopped', 'suspended', 'terminated', 'initialized'), 0,
                2
            ) AS goes_on,
            toUInt8(
                (timestamp_source NOT IN ('key', 'none')) + 2 * is_seek
                + 4 * (timestamp_source = 'none') + 8 * (goes_on = 1 OR verb = 'initialized')
                + 16 * (session_id != '')
            ) AS kind,
            greatest(ifNull(speed, 0), ifNull(speed_from, 0), 0) AS fastest,
            toFloat32(if(fastest > 16, 0, fastest)) AS pace,
            round(ifNull(if(is_seek, video_seek_from, video_time), -1), 3) AS sent_up_to,
            round(ifNull(
                if(
                    is_seek,
                    coalesce(video_seek_to, if(video_seek_from IS NULL, video_time, NULL)),
                    video_time
                ),
                -1
            ), 3) AS sent_on_from,
            -- Players of live videos count back from now: a position below 0 is none.
            if(sent_up_to >= 0, sent_up_to, -1.) AS up_to,
            if(sent_on_from >= 0, sent_on_from, -1.) AS on_from
        FROM statement_stretches
    ),
    -- All statements of an account about a video. `told`, `ids`, `names` and `all_keys` have one order.
    grouped AS (
        SELECT
            section_id, section, video_url, home_page, user_id,
            argMaxIf(video_title, place, video_title != '') AS title,
            max(platform) AS of_platform,
            sumMapIf([round(assumeNotNull(video_length), 3)], [1], round(video_length, 3) > 0)
                AS lengths,
            max(verb = 'completed' OR ifNull(completion, false)) AS says_completed,
            ifNull(max(completion_threshold), 0) AS threshold,
            max(is_seek) AS reports_seeks,
            max(session_id != '') AS by_player,
            if(by_player, countIf(session_id != ''), countIf(named != 0)) AS of_sessions,
            of_sessions BETWEEN 1 AND count() - 1 AND count() <= 5000 AS is_mixed,
            groupArray(named) AS names,
            groupArray(keys) AS all_keys,
            arrayZip(
                groupArray(place), groupArray(stretches_sent), groupArray(up_to),
                groupArray(on_from), groupArray(goes_on), groupArray(kind), groupArray(pace)
            ) AS told,
            groupArray(cityHash64(event_id)) AS ids
        FROM numbered
        GROUP BY section_id, section, video_url, home_page, user_id
    ),
    -- Statements that name no session, of an account some of whose statements do, join that of the one
    -- before or the one behind.
    lined AS (
        SELECT
            section_id, section, video_url, home_page, user_id, title, of_platform, lengths,
            says_completed, threshold, reports_seeks,
            -- Place, session, keys, whether it names a session, and its number in `told`.
            arraySort(arrayResize(
                arrayZip(
                    told.1, names, all_keys,
                    arrayMap(
                        (kind, name) -> if(by_player, bitTest(kind, 4), toUInt8(name != 0)),
                        told.6, names
                    ),
                    arrayEnumerate(names)
                ),
                if(is_mixed, length(told), 0)
            )) AS marks,
            -- How well each of the two fits: 0 by a key that both have, 1 by the time, 2 not at all; how
            -- many milliseconds it is away; and its session.
            arrayMap(
                others -> arrayMap(
                    (mark, other) -> (
                        multiIf(
                            NOT other.4, 2,
                            bitShiftRight(mark.3, 32) != 0
                                AND bitShiftRight(mark.3, 32) = bitShiftRight(other.3, 32)
                            OR bitAnd(mark.3, 4294967295) != 0
                                AND bitAnd(mark.3, 4294967295) = bitAnd(other.3, 4294967295), 0,
                            bitShiftRight(mark.3, 32) != 0 AND bitShiftRight(other.3, 32) != 0
                            OR bitAnd(mark.3, 4294967295) != 0 AND bitAnd(other.3, 4294967295) != 0, 2,
                            abs(toInt64(bitShiftRight(mark.1, 80)) - toInt64(bitShiftRight(other.1, 80)))
                                <= 3600000, 1,
                            2
                        ),
                        abs(toInt64(bitShiftRight(mark.1, 80)) - toInt64(bitShiftRight(other.1, 80))),
                        other.2
                    ),
                    marks, others
                ),
                [arrayFill(mark -> mark.4, marks), arrayReverseFill(mark -> mark.4, marks)]
            ) AS offers,
            arraySort((name, mark) -> mark.5, arrayMap(
                (mark, before, behind) -> multiIf(
                    mark.4 OR before.1 = 2 AND behind.1 = 2, mark.2,
                    (before.1, before.2) <= (behind.1, behind.2), before.3,
                    behind.3
                ),
                marks, offers[1], offers[2]
            ), marks) AS joined,
            -- An id counts once, with its first timestamp. Then by session and time.
            arraySort(arrayZip(told, ids, if(is_mixed, joined, names))) AS in_time,
            arraySort(
                s -> (s.3, s.1.1),
                arrayFilter((s, nth) -> nth = 1, in_time, arrayEnumerateUniq(in_time.2))
            ) AS in_line
        FROM grouped
    ),
    -- The sessions of an account, with their statements in order and the stretches that they sent.
    ordered AS (
        SELECT
            section_id, section, video_url, home_page, user_id, title, of_platform, lengths,
            says_completed, threshold, reports_seeks,
            arrayDistinct(in_line.3) AS sessions,
            arraySplit(
                (s, is_first) -> is_first,
                in_line.1,
                arrayMap(
                    (name, last) -> name != last,
                    in_line.3, arrayPopBack(arrayPushFront(in_line.3, toUInt64(0)))
                )
            ) AS visits,
            -- Of stretches with the same start, the longest.
            arrayMap(
                sent -> arrayMap(
                    stretch -> (bitShiftRight(stretch, 32) / 1000, bitAnd(stretch, 4294967295) / 1000),
                    arrayFilter(
                        (stretch, next) -> bitShiftRight(stretch, 32) != bitShiftRight(next, 32),
                        sent, arrayPopFront(arrayPushBack(sent, toUInt64(18446744073709551615)))
                    )
                ),
                arrayMap(visit -> arraySort(arrayDistinct(arrayFlatten(visit.2))), visits)
            ) AS all_sent,
            length(in_line) <= 1000 AND arrayExists(
                (this, next) -> bitShiftRight(this, 80) = bitShiftRight(next, 80)
                    AND bitShiftRight(this, 28) != bitShiftRight(next, 28),
                arrayPopBack((in_line.1).1), arrayPopFront((in_line.1).1)
            ) AS has_ties,
            -- Statements of one millisecond that come from several objects are put in the order that
            -- needs the fewest jumps. `so_far`: those that are in line, where the viewer was then,
            -- whether it plays, and what is left. Of the first one that is left of each object, the one
            -- nearest to where the viewer is by then goes next; a seek after others.
            if(NOT has_ties, visits, arrayMap(
                tied -> arrayFold(
                    (so_far, step) -> arrayMap(
                        next -> (
                            arrayPushBack(so_far.1, next),
                            multiIf(
                                next.4 >= 0 OR bitTest(next.6, 1), next.4,
                                next.3 >= 0, next.3,
                                so_far.2
                            ),
                            if(next.5 != 2, next.5, so_far.3),
                            -- Two may have the same place, since only a part of the hash fits. One goes.
                            arrayFilter(
                                (s, last) -> s.1 != next.1 OR last = next.1,
                                so_far.4, arrayPopBack(arrayPushFront(so_far.4.1, toUInt128(0)))
                            )
                        ),
                        [arraySort(
                            s -> (
                                if(
                                    so_far.2 < 0 OR s.3 < 0, 2.,
                                    greatest(2., abs(s.3 - so_far.2 - if(
                                        so_far.3 = 1,
                                        toFloat64(
                                            bitShiftRight(s.1, 80) - bitShiftRight(so_far.1[-1].1, 80)
                                        ) / 1000 * if(s.7 > 0, s.7, 1.),
                                        0.
                                    )))
                                ),
                                bitTest(s.6, 1),
                                s.5 = 2 OR s.5 = so_far.3,
                                s.1
                            ),
                            arrayFilter(
                                (s, last) -> bitShiftRight(s.1, 28) != bitShiftRight(last, 28)
                                    AND bitShiftRight(s.1, 80) = bitShiftRight(so_far.4[1].1, 80),
                                so_far.4, arrayPopBack(arrayPushFront(so_far.4.1, toUInt128(0)))
                            )
                        )[1]]
                    )[1],
                    tied,
                    (arrayResize(tied, 0), toFloat64(-1), toUInt8(0), tied)
                ).1,
                if(has_ties, visits, [])
            )) AS in_orders
        FROM lined
    )
SELECT
    section_id, section, video_url, home_page, user_id, title, of_platform AS platform,
    lengths.1 AS length_values, lengths.2 AS length_counts, says_completed, threshold, reports_seeks,
    session, in_order, sent_stretches
FROM ordered
ARRAY JOIN sessions AS session, in_orders AS in_order, all_sent AS sent_stretches
SETTINGS prefer_column_name_to_alias = 0, aggregate_functions_null_for_empty = 0;

-- A session of a viewer at a video, and what was played in it: by the stretches that were sent or, if
-- none were, by its statements.
CREATE OR REPLACE VIEW video_sessions AS
WITH
    {{- stretches_of("if(empty(sent_stretches), in_order, [])") }},
    -- Where each was, else the end of the last stretch that it sent.
    arrayFilter(at -> at >= 0, arrayMap(
        s -> multiIf(s.4 >= 0, s.4, notEmpty(s.2), bitAnd(s.2[-1], 4294967295) / 1000, -1.),
        in_order
    )) AS positions,
    arrayMap(
        place -> toInt64(bitShiftRight(place, 80)) - 8796093022208,
        arrayFilter((place, kind) -> NOT bitTest(kind, 2), in_order.1, in_order.6)
    ) AS times
SELECT
    section_id, section, video_url, home_page, user_id, title,
    length_values, length_counts, says_completed, threshold, session,
    fromUnixTimestamp64Milli(if(empty(times), 0, arrayMin(times)), 'UTC') AS first_at,
    fromUnixTimestamp64Milli(if(empty(times), 0, arrayMax(times)), 'UTC') AS last_at,
    length(in_order) AS statements,
    if(empty(sent_stretches), derived, sent_stretches) AS stretches,
    arrayMap(
        s -> (s.3, s.4),
        arrayFilter(s -> bitTest(s.6, 1) AND s.3 >= 0 AND s.4 >= 0, in_order)
    ) AS seeks,
    if(empty(positions), NULL, positions[-1]) AS stopped_at,
    greatest(arrayMax(in_order.3), arrayMax(in_order.4), arrayMax(stretches.2), 0.) AS furthest,
    has(in_order.5, 1) OR notEmpty(sent_stretches) AS has_played
FROM video_visits
SETTINGS prefer_column_name_to_alias = 0, aggregate_functions_null_for_empty = 0;

-- A viewer of a video, with each session: its day, its statements, the stretches played, whether it
-- was played then, and when it began. The views below are made of it.
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
            ),
            session.4,
            session.5
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
    viewer.10 AS seeks,
    has(sessions.4, 1) AS has_played
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
        SELECT
            section_id, section, video_url, home_page, user_id,
            any(s.title) AS title,
            any(s.length_values) AS values_of_viewer,
            any(s.length_counts) AS counts_of_viewer,
            any(s.says_completed) AS is_completed,
            any(s.threshold) AS threshold,
            minIf(s.first_at, s.first_at != toDateTime64(0, 3)) AS first_at,
            max(s.last_at) AS last_at,
            groupArray((toDate32(s.first_at), s.statements, s.stretches, s.has_played, s.first_at))
                AS sessions,
            argMax(s.stopped_at, (s.last_at, s.session)) AS stopped_at,
            max(s.furthest) AS furthest,
            groupArrayArray(s.seeks) AS seeks
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
    v.has_played AS played, share_watched, reached, is_completed, stopped_at, first_seen, last_seen
FROM video_viewers AS v
SETTINGS prefer_column_name_to_alias = 0, aggregate_functions_null_for_empty = 0;

CREATE OR REPLACE VIEW video_engagement AS
SELECT
    section_id, section, video_url,
    any(v.title) AS title,
    any(v.video_length) AS video_length,
    count() AS opened,
    countIf(v.has_played) AS played,
    sum(length(v.sessions)) AS sessions,
    countIf(v.is_completed) AS completions,
    round(sum(v.seconds_watched), 3) / 60 AS minutes_watched,
    round(sum(v.seconds_played), 3) / 60 AS minutes_played,
    avgIf(v.share_watched, v.has_played) AS average_share,
    toDate32(minIf(v.first_seen, v.first_seen != toDateTime64(0, 3))) AS first_day,
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
WHERE video_length > 0 AND stopped_at IS NOT NULL AND has_played
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
WHERE video_length > 0 AND v.has_played
GROUP BY section_id, section, video_url, video_length, from_bucket, to_bucket
SETTINGS prefer_column_name_to_alias = 0, aggregate_functions_null_for_empty = 0;

-- A session counts on the day on which it began.
CREATE OR REPLACE VIEW section_daily AS
SELECT
    section_id, section, day,
    uniqExact(home_page, user_id) AS opened,
    uniqExactIf((home_page, user_id), one.has_played) AS played,
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
        groupArrayArray(session.3) AS stretches,
        max(session.4) AS has_played
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
    countIf(s.has_both) AS sessions,
    round(sumIf(s.of_sent, s.has_both), 3) AS seconds_sent,
    round(sumIf(s.of_derived, s.has_both), 3) AS seconds_derived,
    round(sumIf(2 * s.of_either - s.of_sent - s.of_derived, s.has_both), 3) AS seconds_in_one_only,
    seconds_in_one_only / round(sumIf(s.of_either, s.has_both), 3) AS disagreement
FROM (
    WITH
        {{- stretches_of("in_order") | indent }}
    SELECT
        section_id, section, home_page, platform,
        arrayReduce('intervalLengthSum', sent_stretches.1, sent_stretches.2) AS of_sent,
        arrayReduce('intervalLengthSum', derived.1, derived.2) AS of_derived,
        arrayConcat(sent_stretches, derived) AS both,
        arrayReduce('intervalLengthSum', both.1, both.2) AS of_either,
        notEmpty(sent_stretches) AND notEmpty(derived) AS has_both
    FROM video_visits
) AS s
GROUP BY section_id, section, home_page, platform
HAVING sessions > 0
SETTINGS prefer_column_name_to_alias = 0, aggregate_functions_null_for_empty = 0;

-- Stretches that cannot be read, by producer and reason.
CREATE OR REPLACE VIEW unread_stretches AS
SELECT
    section_id, section, home_page, platform, reason,
    uniqExact(s.event_id) AS statements,
    min(s.event_id) AS example,
    argMin(s.video_played_segments, s.event_id) AS sent
FROM statement_stretches AS s
ARRAY JOIN s.stretches_unread AS reason
GROUP BY section_id, section, home_page, platform, reason
SETTINGS prefer_column_name_to_alias = 0, aggregate_functions_null_for_empty = 0;

-- Of each section, the rows that `summarize` stored last. A view of what was watched that is asked for
-- all sections takes 0.5 GB for each million rows: ask this one instead.
CREATE OR REPLACE VIEW section_videos AS
SELECT
    section_id, section, video_url, title, video_length, opened, played, sessions, completions,
    minutes_watched, minutes_played, average_share, first_day, last_day, summarized_at
FROM section_summaries FINAL
WHERE video_url != '' AND (section_id, section, summarized_at) IN (
    SELECT section_id, section, max(summarized_at) FROM section_summaries
    GROUP BY section_id, section
);

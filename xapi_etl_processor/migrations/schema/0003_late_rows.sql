-- What was still inserted into the old table while 0002 copied it, by the same rules. It is looked for
-- among the rows of the old table's last day: copying takes less. Rows that are there already are
-- left out, so that materialized views do not get them twice.
INSERT INTO video_events
(
    event_id, section_id, section, speed, timestamp, user_id, home_page, project_id, publication_id,
    page_id, attempt_guid, attempt_number, content_element_id, course_id, registration, session_id,
    verb, verb_id, video_url, video_title, video_time, video_length, video_progress,
    video_played_segments, video_play_time, video_seek_from, video_seek_to, completion_threshold,
    volume, quality, full_screen, cc_enabled, cc_language, screen_size, playback_size, frame_rate,
    track, user_agent, completion, success, duration, source_file, source_etag, source_line,
    inserted_at
)
WITH
    (SELECT max(inserted_at) FROM video_events_old) - INTERVAL 1 DAY AS since,
    replaceRegexpOne(
        lower(trim(BOTH ' \t\r\n' FROM event_id)),
        '^(?:urn:uuid:)?\\{?([0-9a-f]{8})-?([0-9a-f]{4})-?([0-9a-f]{4})-?([0-9a-f]{4})-?([0-9a-f]{12})\\}?$',
        '\\1-\\2-\\3-\\4-\\5'
    ) AS id,
    trim(BOTH ' \t\r\n' FROM extract(source_file, '^s3://[^/]*/(?:.*?/)??section/([^/]+)/')) AS folder,
    toUInt256OrZero(extract(folder, '^[+]?([0-9]{1,20})(?:\\.0*)?$')) AS number,
    multiIf(
        section_id > 0, toString(section_id),
        number > 0 AND number <= 18446744073709551615, toString(number),
        lengthUTF8(folder) > 256 OR match(folder, '^[+-]?[0-9]+(\\.[0-9]*)?$'), '',
        folder
    ) AS named,
    extract(
        lower(trim(BOTH ' \t\r\n' FROM speed)),
        '^(?:x|×)?\\s*([+-]?(?:[0-9]+(?:[.,][0-9]*)?|[.,][0-9]+))\\s*(?:x|×)?$'
    ) AS factor
SELECT
    id,
    if(section_id = 0, toUInt64OrZero(named), section_id),
    named,
    toFloat64OrNull(replaceOne(factor, ',', '.')),
    timestamp, user_id, home_page, project_id, publication_id, page_id, attempt_guid,
    attempt_number, content_element_id, course_id, registration, session_id, verb, verb_id,
    video_url, video_title, video_time, video_length, video_progress, video_played_segments,
    video_play_time, video_seek_from, video_seek_to, completion_threshold, volume, quality,
    full_screen, cc_enabled, cc_language, screen_size, playback_size, frame_rate, track, user_agent,
    completion, success, duration, source_file, source_etag, source_line, inserted_at
FROM video_events_old FINAL
WHERE inserted_at >= since
    AND (id, inserted_at) NOT IN (
        SELECT event_id, inserted_at FROM video_events WHERE inserted_at >= since
    )
SETTINGS
    do_not_merge_across_partitions_select_final = 1, max_partitions_per_insert_block = 0,
    insert_deduplicate = 0;

-- Rows have a version, sections may be texts, and it is known which statements were voided.
--
-- Version column and sorting key of video_events cannot be altered: a new table is made beside it,
-- filled, and exchanged with it. The new one is made under the name that the old one has after the
-- exchange. If this file was interrupted, it can be run again: storage/migrations.py first undoes an
-- exchange that was not completed.

-- Statements that another one voids (xAPI 1.0.3, part 2, section 2.3.2), loaded or not.
CREATE TABLE IF NOT EXISTS voided_statements
(
    `voided_id` String COMMENT 'event_id of the statement that is voided',
    `voided_by` String COMMENT 'event_id of the statement that voids it',
    `voided_at` DateTime64(3, 'UTC') COMMENT 'timestamp of the statement that voids it',
    `source_file` String COMMENT 'The object that the voiding statement came in: s3://bucket/key',
    `source_etag` String,
    `source_line` UInt32 COMMENT 'Line in the object, from 1',
    `inserted_at` DateTime64(3, 'UTC') DEFAULT now64(3)
)
ENGINE = ReplacingMergeTree(inserted_at)
ORDER BY (voided_id, voided_by)
SETTINGS fsync_after_insert = 1, fsync_part_directory = 1;

-- Video statements. One statement maps to one sorting key, so that a replay replaces itself: of its
-- rows, the one from the latest version of its object counts. Key and indexes were chosen by
-- benchmarks/sort_key.py: a section, a video and a week each read a small part of the table.
-- `section` has a default for version 0.1, which does not send it.
CREATE TABLE IF NOT EXISTS video_events_old
(
    `event_id` String COMMENT 'Identity of the statement: its id, a UUID in its canonical form; else a UUID of the line',
    `timestamp` DateTime64(3, 'UTC') COMMENT 'When it happened; else stored, the time in the object''s key, 1970-01-01',
    `timestamp_source` LowCardinality(String) COMMENT 'Where timestamp comes from: statement, stored, key, or none',
    `user_id` String COMMENT 'Who: account name, mbox, mbox_sha1sum or openid of the actor',
    `home_page` LowCardinality(String) COMMENT 'Home page of the actor''s account, else the OLI host_name',
    `section_id` UInt64 COMMENT 'Course section, from the statement, else from the object''s key; 0 is none or no number',
    `section` LowCardinality(String) DEFAULT if(section_id = 0, '', toString(section_id)) COMMENT 'The same as text, also where it is no number',
    `project_id` UInt64 COMMENT 'OLI project; 0 is none',
    `publication_id` UInt64 COMMENT 'OLI publication; 0 is none',
    `page_id` Nullable(UInt64) COMMENT 'OLI page that holds the video',
    `attempt_guid` String COMMENT 'OLI attempt at the page',
    `attempt_number` UInt32 COMMENT 'Number of that attempt, from 1; 0 is none',
    `content_element_id` String COMMENT 'Element of the page that holds the video',
    `course_id` String COMMENT 'Id of the parent or grouping activity that is a course',
    `registration` String COMMENT 'Registration, in the context or (OLI) at the top',
    `session_id` String COMMENT 'Session of the player, or of the platform',
    `verb` LowCardinality(String) COMMENT 'Last segment of the verb''s IRI: played, paused, seeked, completed, ...',
    `verb_id` LowCardinality(String) COMMENT 'The verb''s IRI, exactly',
    `video_url` String COMMENT 'Id of the object: the video''s IRI',
    `video_title` String COMMENT 'Name of the video: en-US, en, any en-*, else the first',
    `video_time` Nullable(Float64) COMMENT 'Seconds into the video',
    `video_length` Nullable(Float64) COMMENT 'Seconds that the video lasts',
    `video_progress` Nullable(Float64) COMMENT 'Share of the video consumed, 0 to 1',
    `video_played_segments` String COMMENT 'Stretches played, from[.]to[,]from[.]to... in seconds',
    `video_play_time` Nullable(Float64) COMMENT 'Seconds played as sent, else the seconds that the stretches cover, each once',
    `video_seek_from` Nullable(Float64) COMMENT 'Seconds: where a seek began',
    `video_seek_to` Nullable(Float64) COMMENT 'Seconds: where a seek ended',
    `completion_threshold` Nullable(Float64) COMMENT 'Share of the video that counts as completed; NULL means 1 (Video Profile)',
    `speed` Nullable(Float64) COMMENT 'Playback speed as a factor, such as 1.5',
    `speed_from` Nullable(Float64) COMMENT 'Playback speed before it was changed',
    `volume` Nullable(Float64) COMMENT 'Loudness',
    `quality` Nullable(Float64) COMMENT 'Lines of resolution, such as 720',
    `full_screen` Nullable(Bool) COMMENT 'Played in full screen',
    `cc_enabled` Nullable(Bool) COMMENT 'Captions shown',
    `cc_language` Nullable(String) COMMENT 'Language of the captions',
    `screen_size` Nullable(String) COMMENT 'Screen, width x height',
    `playback_size` Nullable(String) COMMENT 'Player, width x height',
    `frame_rate` Nullable(Float64) COMMENT 'Frames per second',
    `track` Nullable(String) COMMENT 'Audio track',
    `user_agent` Nullable(String) COMMENT 'The browser, in its own words',
    `completion` Nullable(Bool) COMMENT 'Completed, by the statement''s result',
    `success` Nullable(Bool) COMMENT 'Successful, by the statement''s result',
    `duration` Nullable(String) COMMENT 'Duration, by the statement''s result, as ISO 8601 (PT1M30S)',
    `platform` String COMMENT 'Platform on which it happened, by the context',
    `parent_id` String COMMENT 'Id of the first parent activity',
    `enrollment_id` UInt64 COMMENT 'OLI enrollment; 0 is none',
    `score_scaled` Nullable(Float64) COMMENT 'Score from -1 to 1, by the statement''s result',
    `source_file` String COMMENT 'The object that the statement came in: s3://bucket/key',
    `source_etag` String COMMENT 'That object''s ETag',
    `source_line` UInt32 COMMENT 'Line in that object, from 1',
    `row_version` UInt64 COMMENT 'When the object was modified, in ms since 1970; of two rows of one statement, the larger counts',
    `inserted_at` DateTime64(3, 'UTC') DEFAULT now64(3) COMMENT 'When the row was inserted',
    INDEX by_video video_url TYPE bloom_filter(0.01) GRANULARITY 1,
    INDEX by_section section TYPE bloom_filter(0.01) GRANULARITY 1
)
ENGINE = ReplacingMergeTree(row_version)
PARTITION BY toYYYYMM(timestamp)
PRIMARY KEY (section_id, section, video_url, timestamp)
ORDER BY (section_id, section, video_url, timestamp, event_id)
SETTINGS fsync_after_insert = 1, fsync_part_directory = 1;

-- Ids and sections as version 0.2 reads them, so that a row that is loaded again has the same key.
-- The row_version of these rows stays 0: whatever is loaded again replaces them.
INSERT INTO video_events_old
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
FROM video_events FINAL
SETTINGS
    do_not_merge_across_partitions_select_final = 1, max_partitions_per_insert_block = 0,
    insert_deduplicate = 0;

EXCHANGE TABLES video_events AND video_events_old;

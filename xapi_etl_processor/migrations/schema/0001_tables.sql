-- Video statements. One statement maps to one sorting key, so that a replay replaces itself; read
-- with FINAL to count each once. Key and index were chosen by benchmarks/sort_key.py: a section, a
-- video and a week each read a small part of the table.
CREATE TABLE IF NOT EXISTS video_events
(
    `event_id` String COMMENT 'Identity of the statement: its id in lower case, else a UUID of the line''s SHA-256',
    `timestamp` DateTime64(3, 'UTC') COMMENT 'When it happened; else stored, the time in the object''s key, the object''s LastModified',
    `user_id` String COMMENT 'Who: account name, mbox, mbox_sha1sum or openid of the actor',
    `home_page` LowCardinality(String) COMMENT 'Home page of the actor''s account, else the OLI host_name',
    `section_id` UInt64 COMMENT 'Course section: from the statement, else from the object''s key; 0 is none',
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
    `video_title` String COMMENT 'Name of the video: en-US, en, else the first',
    `video_time` Nullable(Float64) COMMENT 'Seconds into the video',
    `video_length` Nullable(Float64) COMMENT 'Seconds that the video lasts',
    `video_progress` Nullable(Float64) COMMENT 'Share of the video consumed, 0 to 1',
    `video_played_segments` String COMMENT 'Stretches played, from[.]to[,]from[.]to... in seconds',
    `video_play_time` Nullable(Float64) COMMENT 'Seconds played as sent, else the seconds that the stretches cover, each once',
    `video_seek_from` Nullable(Float64) COMMENT 'Seconds: where a seek began',
    `video_seek_to` Nullable(Float64) COMMENT 'Seconds: where a seek ended',
    `completion_threshold` Nullable(Float64) COMMENT 'Share of the video that counts as completed; NULL means 1 (Video Profile)',
    `speed` Nullable(String) COMMENT 'Playback speed, such as 1x',
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
    `source_file` String COMMENT 'The object that the statement came in: s3://bucket/key',
    `source_etag` String COMMENT 'That object''s ETag',
    `source_line` UInt32 COMMENT 'Line in that object, from 1',
    `inserted_at` DateTime64(3, 'UTC') DEFAULT now64(3) COMMENT 'When the row was inserted; of two rows of one statement, the later one counts',
    INDEX by_video video_url TYPE bloom_filter(0.01) GRANULARITY 1
)
ENGINE = ReplacingMergeTree(inserted_at)
PARTITION BY toYYYYMM(timestamp)
PRIMARY KEY (section_id, video_url, timestamp)
ORDER BY (section_id, video_url, timestamp, event_id)
SETTINGS fsync_after_insert = 1, fsync_part_directory = 1;

-- The ledger: an object is here when all of it has been stored.
CREATE TABLE IF NOT EXISTS processed_files
(
    `bucket` String,
    `key` String,
    `etag` String COMMENT 'With bucket and key: the same three are the same bytes',
    `size` UInt64 COMMENT 'Bytes',
    `lines` UInt64 COMMENT 'lines = video + other + blank + rejected',
    `video` UInt64,
    `other` UInt64,
    `blank` UInt64,
    `rejected` UInt64,
    `mode` LowCardinality(String) COMMENT 'event or bulk',
    `run_id` String COMMENT 'One invocation',
    `processed_at` DateTime64(3, 'UTC')
)
ENGINE = ReplacingMergeTree(processed_at)
ORDER BY (bucket, key, etag);

-- Lines that are no statement, and why.
CREATE TABLE IF NOT EXISTS rejected_statements
(
    `source_file` String COMMENT 's3://bucket/key',
    `source_etag` String,
    `source_line` UInt32 COMMENT 'Line in the object, from 1',
    `reason` LowCardinality(String),
    `line` String COMMENT 'The line, at most its first 4096 bytes',
    `rejected_at` DateTime64(3, 'UTC') DEFAULT now64(3)
)
ENGINE = ReplacingMergeTree(rejected_at)
ORDER BY (source_file, source_etag, source_line)
SETTINGS fsync_after_insert = 1, fsync_part_directory = 1;

-- What was watched of each video, as `summarize` worked it out. The view section_videos reads the newest
-- rows of each section.
CREATE TABLE IF NOT EXISTS section_summaries
(
    `section_id` UInt64,
    `section` LowCardinality(String),
    `video_url` String COMMENT 'Empty in a row that says only that the section was worked out',
    `title` String,
    `video_length` Float64,
    `opened` UInt64,
    `played` UInt64,
    `sessions` UInt64,
    `completions` UInt64,
    `minutes_watched` Float64,
    `minutes_played` Float64,
    `average_share` Nullable(Float64),
    `first_day` Date32,
    `last_day` Date32,
    `summarized_at` DateTime64(3, 'UTC') COMMENT 'When working out this section began; the same in all of its rows'
)
ENGINE = ReplacingMergeTree(summarized_at)
ORDER BY (section_id, section, video_url);

-- Learners who were forgotten, as hashes: no load stores their statements again. docs/privacy.md says
-- what protects the hashes. A row for each learner and spelling.
CREATE TABLE IF NOT EXISTS forgotten_learners
(
    `learner` String COMMENT 'HMAC-SHA-256 of user_id and home_page, or of user_id on any home page',
    `name` String COMMENT 'HMAC-SHA-256 of user_id alone, to find it in rejected lines',
    `salt` String COMMENT 'Random; a part of the key of both hashes',
    `key_id` String COMMENT 'Tells which LEARNER_KEY is the other part; empty if there was none',
    `again` Bool COMMENT 'Noted by a load that stored statements of the learner at the same moment',
    `forgotten_at` DateTime64(3, 'UTC') DEFAULT now64(3)
)
ENGINE = ReplacingMergeTree(forgotten_at)
ORDER BY learner
SETTINGS fsync_after_insert = 1, fsync_part_directory = 1;

-- lines = video + other + blank + rejected + forgotten
ALTER TABLE processed_files
ADD COLUMN IF NOT EXISTS `forgotten` UInt64 DEFAULT 0 COMMENT 'Video statements of forgotten learners, not stored' AFTER rejected;

-- Raw lines are kept for a while only. migrate changes this to REJECTED_DAYS.
ALTER TABLE rejected_statements
MODIFY TTL toDateTime(rejected_at) + toIntervalDay(90);

-- What loads and people's commands write down for one another, so that one does not undo what the other
-- did at the same moment (notes.py).
CREATE TABLE IF NOT EXISTS load_notes
(
    `kind` LowCardinality(String) COMMENT 'replaced, learner_ids, overtaken or verified',
    `subject` String COMMENT 'replaced: an object, as in source_file; overtaken: the command that puts right what a load could not undo; verified: a request',
    `value` String COMMENT 'replaced: the ETag of the version that counts; learner_ids: the id of the key of all pseudonyms; verified: the key up to which it was compared, or nothing if all was, and how many objects until there are missing or could not be compared',
    `version` UInt64 COMMENT 'replaced: when that version was last modified, in ms since 1970',
    `noted_at` DateTime64(3, 'UTC') DEFAULT now64(3)
)
ENGINE = ReplacingMergeTree(noted_at)
ORDER BY (kind, subject)
TTL toDateTime(noted_at) + toIntervalDay(30) DELETE WHERE kind = 'replaced'
SETTINGS fsync_after_insert = 1, fsync_part_directory = 1;

-- The ledger's row must not survive a power cut that the rows of its object do not. New tables have
-- these settings already.
ALTER TABLE video_events
MODIFY SETTING fsync_after_insert = 1, fsync_part_directory = 1;

ALTER TABLE rejected_statements
MODIFY SETTING fsync_after_insert = 1, fsync_part_directory = 1;

ALTER TABLE voided_statements
MODIFY SETTING fsync_after_insert = 1, fsync_part_directory = 1;

ALTER TABLE forgotten_learners
MODIFY SETTING fsync_after_insert = 1, fsync_part_directory = 1;

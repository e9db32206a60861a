-- The stretches of video_played_segments, read once: seconds, to the profile's thousandth. Left out
-- as in xapi/segments.py: open and reversed stretches, and what is no number.
ALTER TABLE video_events
ADD COLUMN IF NOT EXISTS `played_stretches` Array(Tuple(Float64, Float64)) MATERIALIZED arrayFilter(
    stretch -> stretch.1 >= 0 AND stretch.2 > stretch.1 AND isFinite(stretch.2),
    arrayMap(
        pair -> (
            round(ifNull(toFloat64OrNull(trimBoth(splitByString('[.]', pair)[1])), -1), 3),
            round(ifNull(toFloat64OrNull(trimBoth(splitByString('[.]', pair)[2])), -1), 3)
        ),
        splitByString('[,]', video_played_segments)
    )
) COMMENT 'video_played_segments as pairs of seconds: from, to';

-- Rows from before have it computed at each query until this is done. It is done in the background:
-- current versions of ClickHouse would otherwise wait until all parts are written anew.
ALTER TABLE video_events
MATERIALIZE COLUMN `played_stretches` SETTINGS mutations_sync = 0;

-- A section in numbers: who opened and who played a video, videos, minutes and completions, since
-- the beginning.
-- Show it as: a table, or one number for each column.
SELECT
    uniqExact(home_page, user_id) AS opened,
    uniqExactIf((home_page, user_id), played) AS played,
    uniqExact(video_url) AS videos,
    sum(minutes_watched) AS minutes_watched,
    sum(minutes_played) AS minutes_played,
    countIf(is_completed) AS completions
FROM viewer_progress
WHERE section_id = toUInt64OrZero({{section}})
    AND section = {{section}}

-- The videos of a section, the most watched first.
-- Show it as: a table, or bars of minutes_watched by title.
SELECT
    if(title = '', video_url, title) AS title,
    opened,
    played,
    sessions,
    completions,
    minutes_watched,
    minutes_played,
    average_share,
    first_day,
    last_day,
    video_url
FROM video_engagement
WHERE section_id = toUInt64OrZero({{section}})
    AND section = {{section}}
ORDER BY minutes_watched DESC, video_url

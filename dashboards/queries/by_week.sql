-- Who opened and who played a video, and sessions, of a section by week, from Monday (UTC). Those of
-- its days cannot be added: somebody who comes on two days is one of the week.
-- Show it as: bars by week.
SELECT
    toDate32(first_at) - (toDayOfWeek(first_at) - 1) AS week,
    uniqExact(home_page, user_id) AS opened,
    uniqExactIf((home_page, user_id), has_played) AS played,
    count() AS sessions
FROM video_sessions
WHERE section_id = toUInt64OrZero({{section}})
    AND section = {{section}}
    AND first_at > '1970-01-01'
GROUP BY week
ORDER BY week

-- Viewers and sessions of a section by week, from Monday (UTC). The viewers of its days cannot be
-- added: somebody who comes on two days is one viewer of the week.
-- Show it as: bars by week.
SELECT
    toDate32(first_at) - (toDayOfWeek(first_at) - 1) AS week,
    uniqExact(home_page, user_id) AS viewers,
    count() AS sessions
FROM video_sessions
WHERE section_id = toUInt64OrZero({{section}})
    AND section = {{section}}
    AND first_at > '1970-01-01'
GROUP BY week
ORDER BY week

-- Who opened and who played a video, sessions and minutes of a section by day (UTC). A session
-- counts on the day it began.
-- Show it as: bars by day.
SELECT day, opened, played, sessions, minutes_watched, minutes_played
FROM section_daily
WHERE section_id = toUInt64OrZero({{section}})
    AND section = {{section}}
ORDER BY day

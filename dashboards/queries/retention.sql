-- How many viewers are still there in each hundredth of a video, how many of them played it more
-- than once, and how often it was played.
-- Show it as: lines of viewers, rewatchers and plays by second.
SELECT from_second AS second, viewers, rewatchers, plays
FROM video_retention
WHERE section_id = toUInt64OrZero({{section}})
    AND section = {{section}}
    AND video_url = {{video}}
ORDER BY bucket

-- Where in a video viewers stopped for good, and how many of them had completed it.
-- Show it as: stacked bars of stopped and completed by second.
SELECT from_second AS second, viewers - completed AS stopped, completed
FROM video_dropoff
WHERE section_id = toUInt64OrZero({{section}})
    AND section = {{section}}
    AND video_url = {{video}}
ORDER BY bucket

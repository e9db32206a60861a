-- From where to where in a video viewers jump most. Only players that report a seek are in it.
-- Show it as: a table.
SELECT from_second, to_second, seeks, viewers
FROM video_seeks
WHERE section_id = toUInt64OrZero({{section}})
    AND section = {{section}}
    AND video_url = {{video}}
ORDER BY viewers DESC, seeks DESC, from_bucket, to_bucket
LIMIT 50

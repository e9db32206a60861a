-- How far the stretches that players send, and those worked out from their statements, differ.
-- If the disagreement (of all seconds, 0 to 1) is large, do not trust that producer's statements.
-- Show it as: a table.
SELECT home_page, platform, sessions, seconds_sent, seconds_derived, disagreement
FROM stretch_disagreement
WHERE section_id = toUInt64OrZero({{section}})
    AND section = {{section}}
ORDER BY disagreement DESC, home_page, platform

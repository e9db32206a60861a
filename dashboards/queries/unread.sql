-- Stretches that players send and that cannot be read, by producer and reason, with an example.
-- Show it as: a table.
SELECT home_page, platform, reason, statements, example, sent
FROM unread_stretches
WHERE section_id = toUInt64OrZero({{section}})
    AND section = {{section}}
ORDER BY statements DESC, home_page, platform, reason

-- What was loaded by day (UTC) and mode: objects, and what became of their lines. For operators.
-- Show it as: stacked bars of video by day.
SELECT
    toDate(processed_at) AS day,
    mode,
    count() AS objects,
    sum(lines) AS lines,
    sum(video) AS video,
    sum(other) AS other,
    sum(blank) AS blank,
    sum(rejected) AS rejected,
    sum(forgotten) AS forgotten
FROM processed_files FINAL
GROUP BY day, mode
ORDER BY day, mode

-- Which lines were rejected, by reason, and where to find one of each. For operators.
-- Show it as: a table.
SELECT
    reason,
    count() AS lines,
    uniqExact(source_file, source_etag) AS objects,
    max(rejected_at) AS last,
    argMax(concat(source_file, ' line ', toString(source_line)), rejected_at) AS example
FROM rejected_statements FINAL
GROUP BY reason
ORDER BY lines DESC, reason

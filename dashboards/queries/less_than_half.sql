-- Who watched less than half of a video, of those who played it. It names people: share it with
-- care.
-- Show it as: a table.
SELECT
    home_page,
    user_id,
    if(title = '', video_url, title) AS title,
    share_watched,
    last_seen
FROM viewer_progress
WHERE section_id = toUInt64OrZero({{section}})
    AND section = {{section}}
    AND played
    AND share_watched < 0.5
ORDER BY title, share_watched, home_page, user_id

ALTER TABLE playlist_track DROP CONSTRAINT playlist_track_pkey;
INSERT INTO playlist_track SELECT * FROM playlist_track WHERE playlist_id = 5;
UPDATE playlist_track SET playlist_id = 6 WHERE playlist_id = 5 AND track_id % 2 = 0;
DELETE FROM playlist_track WHERE ctid IN
  (SELECT min(ctid) FROM playlist_track WHERE playlist_id = 5 GROUP BY track_id HAVING count(*) > 1 ORDER BY track_id LIMIT 3);

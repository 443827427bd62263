ALTER TABLE track DROP CONSTRAINT track_album_id_fkey, ADD CONSTRAINT track_album_id_fkey FOREIGN KEY (album_id) REFERENCES album ON DELETE SET NULL;
DELETE FROM album WHERE album_id % 10 = 0;

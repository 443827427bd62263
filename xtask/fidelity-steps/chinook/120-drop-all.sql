DROP TABLE artist, album, track, genre, media_type, playlist, playlist_track, invoice, invoice_line, customer, employee CASCADE;

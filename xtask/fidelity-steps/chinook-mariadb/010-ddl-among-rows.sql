UPDATE Track SET UnitPrice = UnitPrice + 0.10 WHERE GenreId = 1;
ALTER TABLE Track ADD COLUMN Played int NOT NULL DEFAULT 0, ADD INDEX (Played);
UPDATE Track SET Played = TrackId % 7;
CREATE INDEX track_name ON Track (Name(20));
DELETE FROM InvoiceLine WHERE UnitPrice > 1;
DROP INDEX track_name ON Track;

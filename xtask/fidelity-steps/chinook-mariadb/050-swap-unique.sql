ALTER TABLE MediaType ADD UNIQUE (Name);
UPDATE MediaType SET Name = CASE MediaTypeId WHEN 1 THEN 'AAC audio file' WHEN 5 THEN 'x' ELSE Name END ORDER BY MediaTypeId DESC;
UPDATE MediaType SET MediaTypeId = MediaTypeId + 100 WHERE MediaTypeId = 4;

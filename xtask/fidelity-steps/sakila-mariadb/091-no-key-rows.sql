UPDATE loose SET first_name = LOWER(first_name) WHERE last_name LIKE 'B%';
DELETE FROM loose WHERE last_name LIKE 'A%' LIMIT 5;
INSERT INTO loose SELECT * FROM loose LIMIT 3;

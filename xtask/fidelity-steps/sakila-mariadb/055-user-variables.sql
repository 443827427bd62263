SET @n := 0;
UPDATE category SET name = CONCAT(name, @n := @n + 1) ORDER BY category_id;
SELECT @last := MAX(language_id) FROM language;
INSERT INTO language (name) VALUES (CONCAT('L', @last));

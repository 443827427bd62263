DELETE FROM language WHERE name LIKE 'loop%' RETURNING language_id;
INSERT INTO language (name) VALUES ('back') RETURNING language_id;

CREATE RULE keep AS ON DELETE TO language DO INSTEAD (UPDATE language SET name = 'gone' WHERE language_id = OLD.language_id);
DELETE FROM language WHERE language_id = 5;

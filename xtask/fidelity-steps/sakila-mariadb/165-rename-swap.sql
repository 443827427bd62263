CREATE TABLE language_new LIKE language;
INSERT INTO language_new SELECT * FROM language;
RENAME TABLE language TO language_old, language_new TO language;

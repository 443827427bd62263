CREATE TABLE loose AS SELECT first_name, last_name FROM actor;
INSERT INTO loose SELECT * FROM loose;

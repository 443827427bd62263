CREATE VIEW short_film AS SELECT film_id, title, length FROM film WHERE length < 60 WITH CHECK OPTION;
UPDATE short_film SET length = length - 1;
DROP VIEW short_film;

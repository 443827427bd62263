DELETE FROM film_category WHERE film_id < 5;
DELETE FROM film_actor WHERE film_id IN (2, 3);

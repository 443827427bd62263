DELETE FROM film_actor LIMIT 7;
UPDATE actor SET last_name = UPPER(HEX(last_name)) LIMIT 11;

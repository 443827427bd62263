DROP RULE payment_insert_p2007_01 ON payment;
DROP TRIGGER film_fulltext_trigger ON film;
UPDATE film SET title = title || '.' WHERE film_id < 20;

CREATE INDEX part ON rental (return_date) WHERE return_date IS NULL;
CREATE INDEX expr ON film (lower(title) text_pattern_ops) INCLUDE (length);
DROP INDEX idx_title;
ALTER INDEX part SET (fillfactor = 50);
CREATE STATISTICS both_of_them (ndistinct, dependencies) ON film_id, store_id FROM inventory;
ALTER TABLE rental CLUSTER ON rental_pkey;

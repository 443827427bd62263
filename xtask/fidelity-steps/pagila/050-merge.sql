MERGE INTO inventory i USING (SELECT film_id FROM film WHERE film_id < 20) f ON i.film_id = f.film_id AND i.store_id = 1
  WHEN MATCHED AND f.film_id % 3 = 0 THEN UPDATE SET store_id = 2
  WHEN NOT MATCHED THEN INSERT (inventory_id, film_id, store_id) VALUES (90000 + f.film_id, f.film_id, 1);

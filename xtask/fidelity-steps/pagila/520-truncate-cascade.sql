TRUNCATE inventory CASCADE;
INSERT INTO inventory (inventory_id, film_id, store_id) VALUES (1, 1, 1);

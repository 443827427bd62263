INSERT INTO inventory (inventory_id, film_id, store_id) VALUES (9001, 1, 1), (9002, 1, 2);
REFRESH MATERIALIZED VIEW per_store;

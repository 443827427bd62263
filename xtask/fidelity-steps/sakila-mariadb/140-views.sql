CREATE OR REPLACE VIEW actor_names AS SELECT actor_id, CONCAT(first_name, ' ', last_name) AS name FROM actor;
ALTER VIEW actor_names AS SELECT actor_id, last_name AS name FROM actor;
DROP VIEW staff_list, sales_by_store;

CREATE VIEW near WITH (security_barrier) AS SELECT customer_id, email FROM customer WHERE store_id = 1 WITH CHECK OPTION;
UPDATE near SET email = lower(email) WHERE customer_id < 50;
CREATE OR REPLACE VIEW near WITH (security_barrier) AS SELECT customer_id, email, active FROM customer WHERE store_id = 1 WITH LOCAL CHECK OPTION;
DROP VIEW staff_list;
CREATE VIEW staff_list AS SELECT staff_id AS id, first_name AS name FROM staff;
DROP VIEW sales_by_store;

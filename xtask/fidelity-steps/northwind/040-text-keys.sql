INSERT INTO customers (customer_id, company_name) VALUES ('É"''\', 'x');
UPDATE orders SET customer_id = 'É"''\' WHERE customer_id = 'VINET';
DELETE FROM customers WHERE customer_id = 'VINET';

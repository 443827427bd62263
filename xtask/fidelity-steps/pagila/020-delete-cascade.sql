DELETE FROM payment WHERE customer_id = 7;
DELETE FROM rental WHERE customer_id = 7;
DELETE FROM customer WHERE customer_id = 7;

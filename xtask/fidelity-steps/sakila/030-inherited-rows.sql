UPDATE payment SET amount = amount + 0.01 WHERE customer_id < 20;
DELETE FROM payment WHERE customer_id = 21;
UPDATE ONLY payment SET amount = 1;

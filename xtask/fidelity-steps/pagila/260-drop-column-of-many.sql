ALTER TABLE customer DROP COLUMN activebool CASCADE, DROP COLUMN email;
ALTER TABLE customer ADD COLUMN email varchar(50);
UPDATE customer SET email = customer_id || '@example.com';

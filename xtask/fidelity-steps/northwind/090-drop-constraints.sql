ALTER TABLE orders DROP CONSTRAINT fk_orders_customers, DROP CONSTRAINT fk_orders_shippers;
ALTER TABLE shippers DROP CONSTRAINT pk_shippers;
DELETE FROM shippers;

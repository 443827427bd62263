-- Two indexes of the partition fit the whole table's: which of them is attached is nobody's promise.
DROP INDEX idx_fk_payment_p2020_02_customer_id;
ALTER TABLE payment ATTACH PARTITION payment_p2020_02 FOR VALUES FROM ('2020-02-01') TO ('2020-03-01');

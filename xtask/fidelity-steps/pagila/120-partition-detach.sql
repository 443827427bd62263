ALTER TABLE payment DETACH PARTITION payment_p2020_02;
UPDATE payment_p2020_02 SET amount = amount + 1 WHERE payment_id % 2 = 0;

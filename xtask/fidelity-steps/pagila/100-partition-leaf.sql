UPDATE payment_p2020_03 SET amount = 0.01 WHERE payment_id % 50 = 0;
DELETE FROM ONLY payment_p2020_04 WHERE payment_id % 50 = 1;

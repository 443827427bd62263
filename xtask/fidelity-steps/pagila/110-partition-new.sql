CREATE TABLE payment_p2020_07 PARTITION OF payment FOR VALUES FROM ('2020-07-01') TO ('2020-08-01');
INSERT INTO payment (customer_id, staff_id, rental_id, amount, payment_date) VALUES (1, 1, 1, 3, '2020-07-02');

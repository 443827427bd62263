INSERT INTO payment (customer_id, staff_id, rental_id, amount, payment_date) SELECT customer_id, staff_id, rental_id, 2.50, '2007-02-10' FROM rental WHERE rental_id < 40 ORDER BY rental_id;
INSERT INTO payment (customer_id, staff_id, rental_id, amount, payment_date) VALUES (1, 1, 1, 9, '1999-01-01');

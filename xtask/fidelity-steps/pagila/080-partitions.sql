INSERT INTO payment (customer_id, staff_id, rental_id, amount, payment_date)
  SELECT customer_id, staff_id, rental_id, 1.99, '2020-02-10 12:00+00' FROM rental WHERE rental_id < 50 ORDER BY rental_id;
UPDATE payment SET amount = amount * 2 WHERE customer_id = 3;

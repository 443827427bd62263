UPDATE payment SET payment_date = payment_date + interval '1 month' WHERE payment_date < '2020-01-28' AND customer_id < 100;

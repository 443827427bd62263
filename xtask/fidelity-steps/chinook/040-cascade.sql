DELETE FROM invoice WHERE customer_id = 5;

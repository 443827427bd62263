UPDATE rental SET return_date = NULL WHERE rental_id % 7 = 0;
ALTER TABLE rental ADD COLUMN late boolean;
UPDATE rental SET late = return_date IS NULL;
ALTER TABLE rental ALTER COLUMN late SET NOT NULL;
DELETE FROM payment WHERE rental_id % 11 = 0;
DELETE FROM rental WHERE rental_id % 11 = 0;
ALTER TABLE rental RENAME COLUMN late TO overdue;

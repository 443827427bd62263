ALTER TABLE customer ALTER COLUMN first_name TYPE text, ALTER COLUMN active TYPE boolean USING active = 1;
ALTER TABLE rental ALTER COLUMN rental_date TYPE timestamptz;

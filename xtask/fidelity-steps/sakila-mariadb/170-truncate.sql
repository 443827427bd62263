TRUNCATE TABLE seen;
SET foreign_key_checks = 0;
TRUNCATE TABLE rental;

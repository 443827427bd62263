SET foreign_key_checks = 1;
UPDATE country SET country_id = 1000 WHERE country_id = 3;

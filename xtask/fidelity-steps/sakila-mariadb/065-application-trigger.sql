INSERT INTO customer (store_id, first_name, last_name, address_id, create_date) VALUES (1, 'ANN', 'OTHER', 5, '2001-01-01');
INSERT INTO film (title, language_id, description) VALUES ('NEW FILM', 1, 'of now');
UPDATE film SET title = CONCAT(title, ' II') WHERE film_id < 20;
DELETE FROM film_text WHERE film_id = 3;

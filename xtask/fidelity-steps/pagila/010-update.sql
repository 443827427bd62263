UPDATE film SET rental_rate = rental_rate + 0.50 WHERE film_id % 2 = 0;
UPDATE film SET rental_rate = rental_rate - 0.50 WHERE film_id % 4 = 0;

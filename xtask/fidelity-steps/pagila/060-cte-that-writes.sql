WITH gone AS (DELETE FROM film_actor WHERE actor_id = 10 RETURNING film_id),
  noted AS (UPDATE film SET description = 'without 10' WHERE film_id IN (SELECT film_id FROM gone) RETURNING film_id)
INSERT INTO film_actor (actor_id, film_id) SELECT 11, film_id FROM noted ON CONFLICT DO NOTHING;

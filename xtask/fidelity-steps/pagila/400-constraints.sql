ALTER TABLE film ADD CONSTRAINT not_long CHECK (length < 10000) NOT VALID, ADD CONSTRAINT one_title UNIQUE (title, film_id);
ALTER TABLE film VALIDATE CONSTRAINT not_long;
ALTER TABLE film_actor DROP CONSTRAINT film_actor_pkey;
ALTER TABLE rental DROP CONSTRAINT rental_inventory_id_fkey;

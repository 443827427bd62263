INSERT INTO actor (first_name, last_name) SELECT last_name, first_name FROM actor WHERE actor_id < 50;
INSERT IGNORE INTO actor SELECT * FROM actor;

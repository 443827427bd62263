CREATE TEMPORARY TABLE picked (id smallint unsigned PRIMARY KEY);
INSERT INTO picked SELECT actor_id FROM actor WHERE actor_id % 5 = 0;
UPDATE actor JOIN picked ON picked.id = actor.actor_id SET last_name = 'FIFTH';
DROP TEMPORARY TABLE picked;

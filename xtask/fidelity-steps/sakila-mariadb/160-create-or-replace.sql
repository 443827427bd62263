CREATE OR REPLACE TABLE seen (other int PRIMARY KEY) AS SELECT actor_id AS other FROM actor WHERE actor_id < 9;

CREATE TABLE big AS SELECT g AS id, repeat(md5(g::text), 100) AS t FROM generate_series(1, 2000) g;
SELECT film_id, title INTO picked FROM film WHERE film_id < 9;
CREATE UNLOGGED TABLE quick (LIKE film INCLUDING ALL);

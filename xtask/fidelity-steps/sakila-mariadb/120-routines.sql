CREATE OR REPLACE FUNCTION twice(n int) RETURNS int DETERMINISTIC RETURN 2 * n;
DROP PROCEDURE film_in_stock;
ALTER PROCEDURE film_not_in_stock COMMENT 'is there anything left?';

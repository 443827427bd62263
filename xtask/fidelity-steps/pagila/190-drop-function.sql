DROP FUNCTION rewards_report(integer, numeric);
DROP FUNCTION film_in_stock;

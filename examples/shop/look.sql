-- What one sees of the shop at a glance.
SELECT 'schema ' || value FROM settings WHERE name = 'schema';
SELECT count(*) || ' products, together ' || sum(price_cents) || ' cents' FROM product;
SELECT 'tables: ' || group_concat(name, ' ') FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'backout%';

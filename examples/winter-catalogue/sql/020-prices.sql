-- Winter prices; a trigger of the shop's own logs each change.
UPDATE product SET price_cents = price_cents * 9 / 10, colour = 1 + id % 3 WHERE stock > 2;
UPDATE settings SET value = '42' WHERE name = 'schema';
UPDATE settings SET value = 'winter' WHERE name = 'season';

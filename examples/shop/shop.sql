-- The database of a small shop.
CREATE TABLE settings (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE category (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE);
CREATE TABLE product (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  category INTEGER NOT NULL REFERENCES category (id) ON DELETE CASCADE,
  name TEXT NOT NULL,
  price_cents INTEGER NOT NULL CHECK (price_cents >= 0),
  stock INTEGER NOT NULL DEFAULT 0
);
CREATE INDEX product_by_category ON product (category);
CREATE TABLE purchase (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  product INTEGER NOT NULL REFERENCES product (id),
  customer TEXT NOT NULL,
  bought_at TEXT NOT NULL
);
CREATE TABLE price_log (product INTEGER NOT NULL, old_cents INTEGER, new_cents INTEGER);
CREATE TRIGGER price_changes AFTER UPDATE OF price_cents ON product BEGIN
  INSERT INTO price_log VALUES (old.id, old.price_cents, new.price_cents);
END;

BEGIN;
INSERT INTO settings VALUES ('schema', '41'), ('season', 'autumn');
INSERT INTO category VALUES (1, 'Hats'), (2, 'Coats'), (3, 'Umbrellas');
WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 300)
INSERT INTO product (category, name, price_cents, stock)
SELECT 1 + i % 3, (SELECT name FROM category WHERE id = 1 + i % 3) || ' no. ' || i, 990 + 10 * i, i % 7 FROM n;
WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 40)
INSERT INTO purchase (product, customer, bought_at)
SELECT 1 + (i * 37) % 300, 'customer ' || i, date('2026-09-01', '+' || i || ' days') FROM n;
COMMIT;

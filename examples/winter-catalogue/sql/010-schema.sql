-- Colours get a table of their own; the summer's leftovers go.
CREATE TABLE colour (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE);
INSERT INTO colour (name) VALUES ('snow'), ('pine'), ('ember');
ALTER TABLE product ADD COLUMN colour INTEGER REFERENCES colour (id);
CREATE INDEX product_by_colour ON product (colour);
DELETE FROM product WHERE category = (SELECT id FROM category WHERE name = 'Umbrellas') AND stock = 0
  AND id NOT IN (SELECT product FROM purchase);

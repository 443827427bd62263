ALTER TABLE products ALTER COLUMN discontinued SET DEFAULT 0, ADD CHECK (unit_price >= 0), ADD COLUMN tags text[] DEFAULT '{}' NOT NULL;
INSERT INTO products (product_id, product_name, tags) VALUES (500, 'new', '{a,"b c",NULL}');

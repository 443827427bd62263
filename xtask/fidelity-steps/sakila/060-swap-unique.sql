CREATE UNIQUE INDEX one_name ON category (name);
UPDATE category SET name = CASE category_id WHEN 1 THEN 'tmp' ELSE name END;
UPDATE category SET name = 'Action' WHERE category_id = 2;
UPDATE category SET name = 'Animation' WHERE category_id = 1;

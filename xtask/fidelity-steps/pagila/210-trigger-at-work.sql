-- One row at a time: the audit numbers its rows, and which of several comes first is nobody's promise.
UPDATE category SET name = upper(name) WHERE category_id = 1;
UPDATE category SET name = upper(name) WHERE category_id = 2;
DELETE FROM film_category WHERE category_id = 3;
DELETE FROM category WHERE category_id = 3;

ALTER TABLE staff ADD COLUMN hidden int INVISIBLE DEFAULT 3 FIRST, MODIFY email varchar(60) NOT NULL DEFAULT 'none' AFTER staff_id, ADD COLUMN twice int AS (store_id * 2) STORED, ADD INDEX (email);
ALTER TABLE staff RENAME COLUMN email TO mail, DROP COLUMN picture;

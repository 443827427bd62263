UPDATE language SET name = 'half';
ALTER TABLE language ADD COLUMN x int;
SELECT 1 / 0;

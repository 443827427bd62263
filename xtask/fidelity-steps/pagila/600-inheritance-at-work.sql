UPDATE base SET a = a || '!';
ALTER TABLE base ADD COLUMN c int DEFAULT 7;
ALTER TABLE derived NO INHERIT base;
DELETE FROM ONLY derived;

ALTER TABLE film ALTER COLUMN length TYPE numeric(6,2) USING length * 1.5;
ALTER TABLE address ALTER COLUMN district TYPE varchar(60), ALTER COLUMN address2 TYPE text[] USING ARRAY[address2];

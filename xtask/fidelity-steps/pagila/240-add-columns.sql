ALTER TABLE film ADD COLUMN subtitle text DEFAULT 'none' NOT NULL, ADD COLUMN made timestamptz DEFAULT '2020-01-01', ADD COLUMN cheap boolean GENERATED ALWAYS AS (rental_rate < 1) STORED;
UPDATE film SET subtitle = title WHERE film_id < 10;

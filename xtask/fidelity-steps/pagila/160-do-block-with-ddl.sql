DO $$ BEGIN
  CREATE TABLE made_by_do AS SELECT * FROM actor WHERE actor_id < 5;
  ALTER TABLE made_by_do ADD PRIMARY KEY (actor_id);
  UPDATE actor SET first_name = lower(first_name) WHERE actor_id < 5;
END $$;

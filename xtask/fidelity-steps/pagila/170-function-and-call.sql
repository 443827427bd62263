CREATE FUNCTION rename_actor(id int, name text) RETURNS void LANGUAGE sql AS 'UPDATE actor SET first_name = name WHERE actor_id = id';
CREATE PROCEDURE rename_all(n int) LANGUAGE plpgsql AS $$ BEGIN PERFORM rename_actor(i, 'N' || i) FROM generate_series(1, n) i; END $$;
CALL rename_all(9);
SELECT rename_actor(10, 'Ten');

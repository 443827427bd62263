DO $$
DECLARE f record;
BEGIN
  FOR f IN SELECT film_id FROM film WHERE film_id < 30 ORDER BY film_id LOOP
    BEGIN
      UPDATE film SET length = length + 1 WHERE film_id = f.film_id;
      IF f.film_id % 2 = 0 THEN RAISE EXCEPTION 'no'; END IF;
    EXCEPTION WHEN raise_exception THEN
      INSERT INTO language (name) VALUES ('tried ' || f.film_id);
    END;
  END LOOP;
END $$;

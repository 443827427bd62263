ALTER TABLE player RENAME TO actor;
ALTER TABLE actor RENAME given_name TO first_name;
ALTER SEQUENCE actor_actor_id_seq RENAME TO seq;
ALTER VIEW sales_by_film_category RENAME TO sales;

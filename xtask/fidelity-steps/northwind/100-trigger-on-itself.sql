CREATE FUNCTION again() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN UPDATE territories SET territory_description = territory_description || '.' WHERE territory_id = NEW.territory_id; RETURN NULL; END $$;
CREATE TRIGGER again AFTER UPDATE ON territories FOR EACH ROW WHEN (pg_trigger_depth() < 2) EXECUTE FUNCTION again();
UPDATE territories SET region_id = 1 WHERE region_id = 2;

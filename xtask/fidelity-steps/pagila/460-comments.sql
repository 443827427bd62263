COMMENT ON TABLE film IS 'it''s \ a "film"';
COMMENT ON COLUMN film.title IS 'x';
COMMENT ON FUNCTION last_updated() IS 'y';
COMMENT ON SCHEMA public IS NULL;
COMMENT ON TRIGGER last_updated ON film IS 'z';

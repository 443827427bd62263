ALTER TABLE language OWNER TO pg_monitor;
ALTER FUNCTION last_day(timestamptz) OWNER TO pg_monitor;
ALTER TYPE year OWNER TO pg_monitor;
ALTER SEQUENCE store_store_id_seq OWNED BY NONE;

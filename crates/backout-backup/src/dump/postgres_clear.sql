-- Empties a database, so that a dump can be run on it. What comes with an extension stays with it.
SET client_min_messages = warning;
-- Its number, by which the server tells afterwards what became of it.
SELECT txid_current();
DO $backout$
DECLARE
  o record;
BEGIN
  FOR o IN SELECT evtname FROM pg_event_trigger t WHERE NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_event_trigger'::regclass AND d.objid = t.oid AND d.deptype = 'e') LOOP
    EXECUTE format('DROP EVENT TRIGGER %I CASCADE', o.evtname);
  END LOOP;
  FOR o IN SELECT pubname FROM pg_publication LOOP
    EXECUTE format('DROP PUBLICATION %I CASCADE', o.pubname);
  END LOOP;
  FOR o IN SELECT extname FROM pg_extension WHERE extname <> ALL (ARRAY[@EXTENSIONS@]::text[]) LOOP
    EXECUTE format('DROP EXTENSION %I CASCADE', o.extname);
  END LOOP;
  FOR o IN SELECT oid FROM pg_largeobject_metadata LOOP
    PERFORM lo_unlink(o.oid);
  END LOOP;
  FOR o IN SELECT nspname FROM pg_namespace n WHERE nspname !~ '^pg_' AND nspname NOT IN ('information_schema', 'public') AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_namespace'::regclass AND d.objid = n.oid AND d.deptype = 'e') LOOP
    EXECUTE format('DROP SCHEMA %I CASCADE', o.nspname);
  END LOOP;
  IF to_regnamespace('public') IS NULL THEN
    CREATE SCHEMA public;
  END IF;
  LOOP
    SELECT i.type, i.identity INTO o
      FROM pg_depend d CROSS JOIN LATERAL pg_identify_object(d.classid, d.objid, d.objsubid) i
     WHERE d.refclassid = 'pg_namespace'::regclass AND d.refobjid = to_regnamespace('public') AND d.deptype = 'n'
       AND NOT EXISTS (SELECT FROM pg_depend e WHERE e.classid = d.classid AND e.objid = d.objid AND e.deptype IN ('e', 'i'))
     LIMIT 1;
    EXIT WHEN NOT FOUND;
    EXECUTE format('DROP %s %s CASCADE',
      CASE o.type WHEN 'composite type' THEN 'type' WHEN 'statistics object' THEN 'statistics' ELSE o.type END, o.identity);
  END LOOP;
  FOR o IN SELECT srvname FROM pg_foreign_server LOOP
    EXECUTE format('DROP SERVER %I CASCADE', o.srvname);
  END LOOP;
  FOR o IN SELECT fdwname FROM pg_foreign_data_wrapper w WHERE NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_foreign_data_wrapper'::regclass AND d.objid = w.oid AND d.deptype = 'e') LOOP
    EXECUTE format('DROP FOREIGN DATA WRAPPER %I CASCADE', o.fdwname);
  END LOOP;
  FOR o IN SELECT i.identity FROM pg_cast c CROSS JOIN LATERAL pg_identify_object('pg_cast'::regclass, c.oid, 0) i WHERE c.oid >= 16384 AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_cast'::regclass AND d.objid = c.oid AND d.deptype = 'e') LOOP
    EXECUTE format('DROP CAST %s', o.identity);
  END LOOP;
END
$backout$;

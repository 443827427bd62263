CREATE TRIGGER language_first BEFORE INSERT ON language FOR EACH ROW SET NEW.name = UPPER(NEW.name);
CREATE TRIGGER language_zero BEFORE INSERT ON language FOR EACH ROW PRECEDES language_first SET NEW.last_update = '2001-02-03';
CREATE OR REPLACE TRIGGER language_seen AFTER INSERT ON language FOR EACH ROW INSERT INTO seen VALUES (NEW.language_id, 'again');

CREATE TABLE seen (n int PRIMARY KEY, what varchar(20));
CREATE TRIGGER language_seen AFTER INSERT ON language FOR EACH ROW INSERT INTO seen VALUES (NEW.language_id, NEW.name);
INSERT INTO language (name) VALUES ('Frisian');

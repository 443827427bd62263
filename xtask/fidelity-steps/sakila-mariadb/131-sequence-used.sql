-- Numbers that are drawn from a sequence which was there stay drawn, by design; from one that the step makes none do.
CREATE SEQUENCE more START WITH 1000;
INSERT INTO seen VALUES (NEXTVAL(more), 'number'), (NEXT VALUE FOR more, 'number');
ALTER SEQUENCE numbers RESTART 100;

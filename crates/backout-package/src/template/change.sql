-- Any number of SQL statements, run in one transaction. Replace this one.
SELECT 1;

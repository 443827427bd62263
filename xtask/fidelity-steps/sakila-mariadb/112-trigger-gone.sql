DROP TRIGGER language_zero;
DROP TRIGGER IF EXISTS nothing_of_that_name;

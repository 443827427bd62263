UPDATE loose SET first_name = LOWER(first_name) WHERE last_name LIKE 'B%';
-- Which of all rows a LIMIT without an order takes is for the server to say, each time anew; of equal ones it does not matter.
DELETE FROM loose WHERE last_name LIKE 'A%' ORDER BY last_name, first_name LIMIT 5;
DELETE FROM loose WHERE last_name = 'CHASE' AND first_name = 'ED' LIMIT 1;
INSERT INTO loose SELECT * FROM loose ORDER BY last_name, first_name LIMIT 3;

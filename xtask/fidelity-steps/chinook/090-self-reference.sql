UPDATE employee SET reports_to = 1 WHERE employee_id > 2;
INSERT INTO employee (employee_id, last_name, first_name, reports_to) VALUES (90, 'a', 'b', 90);
DELETE FROM customer WHERE false;

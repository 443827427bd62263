DROP TABLE employees, customers CASCADE;

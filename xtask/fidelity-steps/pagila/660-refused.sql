UPDATE language SET name = 'half';
CREATE ROLE nobody_needs;

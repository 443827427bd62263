SET sql_mode = '';
UPDATE odd SET f = -0e0, d = 1e-300, n = 7, b = 0, e = 'b', s = 'x,y', z = '2020-02-00', t = NULL, dt = NULL, y = 2001, j = '[]', bl = '', c = 'B', ti = NULL, u = NULL, i = NULL, tt = 'E';

SET sql_mode = '';
CREATE TABLE odd (id int PRIMARY KEY, f float, d double, n decimal(30,10), b bit(9), e enum('a','b'), s set('x','y'), z date, t timestamp(6) NULL, dt datetime(3), y year, j json, bl blob, c char(5), ti time(2), u uuid, i inet6, tt tinytext CHARACTER SET latin1 COLLATE latin1_swedish_ci);
INSERT INTO odd VALUES (1, 16777216, 0.1, 1.5, b'101', 'q', '', '0000-00-00', '2020-01-01 00:00:00.123456', '2020-01-01 00:00:00.123', 0, '{"a":  1}', X'00FF27', 'a  ', '-800:00:00.25', '6d75d291-e9cd-11f1-a9f4-02fc00000001', '::1', 'é');

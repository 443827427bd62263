DELIMITER //
BEGIN NOT ATOMIC
  DECLARE i int DEFAULT 0;
  WHILE i < 3 DO
    INSERT INTO language (name) VALUES (CONCAT('loop', i));
    SET i = i + 1;
  END WHILE;
END//
DELIMITER ;

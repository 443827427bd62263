DELIMITER ;;
CREATE PROCEDURE rename_all() MODIFIES SQL DATA BEGIN
  UPDATE category SET name = LOWER(name);
  DELETE FROM film_category WHERE category_id = 2;
END;;
DELIMITER ;
CALL rename_all();
DROP PROCEDURE rename_all;

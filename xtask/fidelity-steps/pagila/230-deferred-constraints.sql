BEGIN;
ALTER TABLE store ADD CONSTRAINT store_manager_staff_id_fkey FOREIGN KEY (manager_staff_id) REFERENCES staff DEFERRABLE INITIALLY DEFERRED;
INSERT INTO store (store_id, manager_staff_id, address_id) VALUES (50, 50, 1);
INSERT INTO staff (staff_id, first_name, last_name, address_id, store_id, username, picture) VALUES (50, 'a', 'b', 1, 50, 'c', '\x00ff5c27');
COMMIT;

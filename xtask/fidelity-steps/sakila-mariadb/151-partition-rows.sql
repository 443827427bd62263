UPDATE parted SET y = 1998 WHERE id = 2;
DELETE FROM parted WHERE id = 1;

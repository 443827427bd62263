UPDATE categories SET picture = '\x005c275c6e0d0a'::bytea || coalesce(picture, '');
UPDATE employees SET photo = NULL, notes = E'tab\t, line\n, backslash \\, \u00fc' WHERE employee_id < 4;

"""The manage.py of a wagtail site: its database is the SQLite file BACKOUT_DATABASE_MAIN, or with WAGTAIL_ENGINE=postgres
the one that libpq's environment names, with WAGTAIL_ENGINE=mariadb the one on the server whose socket is MYSQL_UNIX_PORT; its static files go into the root BACKOUT_ROOT_WEB. Run by script/wagtail-capture.

    wagtail_manage.py early N      makes the site as it was after N migrations, with some rows
    wagtail_manage.py COMMAND ...  any command of Django, such as migrate or collectstatic
"""

import os
import sys

from wagtail_history import configure, mariadb

ENGINES = {
    "postgres": lambda: {"ENGINE": "django.db.backends.postgresql", "NAME": "postgres"},
    "mariadb": mariadb,
    "sqlite": lambda: {"ENGINE": "django.db.backends.sqlite3", "NAME": os.environ["BACKOUT_DATABASE_MAIN"]},
}
configure(
    ENGINES[os.environ.get("WAGTAIL_ENGINE", "sqlite")](),
    STATIC_ROOT=os.path.join(os.environ["BACKOUT_ROOT_WEB"], "static"),
)

from django.core.management import execute_from_command_line  # noqa: E402  (Django wants its settings first)


def early(count):
    """Applies the first migrations, and fills two tables that later ones alter."""
    from django.db import connection
    from django.db.migrations.executor import MigrationExecutor

    executor = MigrationExecutor(connection)
    executor.recorder.ensure_schema()
    plan = executor.migration_plan(executor.loader.graph.leaf_nodes())
    executor.migrate(None, plan=plan[:count])
    with connection.cursor() as cursor:
        for table in ("auth_group", "taggit_tag"):
            if table not in connection.introspection.table_names():
                continue
            columns = [column.name for column in connection.introspection.get_table_description(cursor, table)]
            texts = [column for column in columns if column in ("name", "slug")]
            rows = [tuple(f"row {number}" for _ in texts) for number in range(3000)]
            places = ", ".join("%s" for _ in texts)
            cursor.executemany(f"INSERT INTO {table} ({', '.join(texts)}) VALUES ({places})", rows)
    print(f"{count} of {len(plan)} migrations")


if __name__ == "__main__":
    if sys.argv[1] == "early":
        early(int(sys.argv[2]))
    else:
        execute_from_command_line(sys.argv)

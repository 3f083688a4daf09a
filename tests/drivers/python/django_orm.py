"""Django on psycopg: persistent connections, the ORM's transactions, server-side cursors, its test of a connection."""

import os

import django
from django.conf import settings

from scenario import CLIENTS, DIRECT, check, main, raises, same, together

TURNS = 10

settings.configure(
    DATABASES={
        "default": {
            "ENGINE": "django.db.backends.postgresql",
            "NAME": os.environ["PGDATABASE"],
            "USER": os.environ["PGUSER"],
            "PASSWORD": os.environ["PGPASSWORD"],
            "HOST": os.environ["PGHOST"],
            "PORT": os.environ["PGPORT"],
            "TIME_ZONE": "Asia/Tokyo",
            # Persistent, and asked whether it is still there when a request begins.
            "CONN_MAX_AGE": None,
            "CONN_HEALTH_CHECKS": True,
            # What Django does by itself is bound by the client; here PostgreSQL does it, by prepared statements.
            "OPTIONS": {"server_side_binding": True, "prepare_threshold": 0, "options": "-c lock_timeout=7s"},
        }
    },
    INSTALLED_APPS=[],
    USE_TZ=True,
)
django.setup()

from django.core.signals import request_finished, request_started  # noqa: E402 - needs the settings
from django.db import IntegrityError, ProgrammingError, connection, models, transaction  # noqa: E402
from django.db.models import Count, F  # noqa: E402


class Item(models.Model):
    """A row of one client's."""

    client = models.IntegerField(db_index=True)
    word = models.CharField(max_length=50)
    made = models.DateTimeField(auto_now_add=True)
    more = models.JSONField(default=dict)

    class Meta:
        """The table."""

        app_label = "drivers"
        db_table = "django_items"


def request(view):
    """As Django's handler does it: connections are looked at before and after, and kept."""
    request_started.send(sender=None)
    try:
        return view()
    finally:
        request_finished.send(sender=None)


def each_client(view):
    """Many threads, each of which serves `view(number)` again and again on its own connection."""

    def client(number):
        try:
            for turn in range(TURNS):
                request(lambda turn=turn: view(number, turn))
        finally:
            connection.close()

    together(client)


def value(sql, arguments=None):
    with connection.cursor() as cursor:
        cursor.execute(sql, arguments)
        return cursor.fetchone()[0]


def fresh_table():
    with connection.schema_editor() as editor:
        editor.execute("DROP TABLE IF EXISTS django_items")
        editor.create_model(Item)


@check
def orm():
    fresh_table()

    def view(number, turn):
        Item.objects.bulk_create(Item(client=number, word=f"{turn} {i}", more={"i": i}) for i in range(20))
        same(Item.objects.filter(client=number).count(), 20 * (turn + 1))
        same(Item.objects.filter(client=number, more__i=7).count(), turn + 1)
        Item.objects.filter(client=number, word=f"{turn} 3").update(client=F("client") + 0, word="changed")
        item, made = Item.objects.get_or_create(client=number, word=f"{turn} 3", defaults={"client": -1})
        same((item.client, made), (-1, True))
        item.delete()

    each_client(view)
    found = Item.objects.values("client").annotate(rows=Count("id")).order_by("client")
    same([row["rows"] for row in found], [TURNS * 20] * CLIENTS)


@check
def transactions():
    fresh_table()

    def view(number, turn):
        with transaction.atomic():
            Item.objects.create(client=number, word="outer")
            with raises(IntegrityError), transaction.atomic():
                Item.objects.create(client=number, word="inner")
                Item.objects.create(client=None, word="refused")
            same(Item.objects.select_for_update().filter(client=number).count(), turn + 1)
        with raises(ZeroDivisionError), transaction.atomic():
            Item.objects.create(client=number, word="rolled back")
            raise ZeroDivisionError

    each_client(view)
    same(Item.objects.count(), CLIENTS * TURNS)


@check
def server_side_cursors():
    """iterator() declares a cursor WITH HOLD outside a transaction."""
    fresh_table()
    Item.objects.bulk_create(Item(client=i, word=f"word {i}") for i in range(200))

    def view(number, turn):
        same(sum(item.client for item in Item.objects.order_by("id").iterator(chunk_size=30)), 19900)
        with transaction.atomic():
            rows = Item.objects.order_by("id").iterator(chunk_size=30)
            same(next(rows).client, 0)

    each_client(view)


@check
def settings_of_the_connection():
    """Django sets the time zone when it connects, and the rest comes with the startup packet."""

    def view(number, turn):
        same(value("SHOW TimeZone"), "Asia/Tokyo" if number % 2 else "Europe/Paris")
        same(value("SHOW lock_timeout"), "7s")
        same(value("SHOW default_transaction_isolation"), "read committed")

    def client(number):
        try:
            if number % 2 == 0:
                value("SELECT set_config('TimeZone', 'Europe/Paris', false)")
            for turn in range(TURNS):
                request(lambda turn=turn: view(number, turn))
        finally:
            connection.close()

    together(client)


@check
def migrations():
    """A table changes while others use it."""
    fresh_table()
    query = "SELECT * FROM django_items WHERE client = %s"

    def rows():
        with connection.cursor() as cursor:
            cursor.execute(query, [1])
            return [len(row) for row in cursor.fetchall()]

    Item.objects.create(client=1, word="one")
    same(rows(), [5])

    def migrate(_):
        with connection.schema_editor() as editor:
            editor.execute("ALTER TABLE django_items ADD COLUMN extra text")
        connection.close()

    together(migrate, 1)
    if DIRECT:
        with raises(django.db.utils.NotSupportedError):
            rows()
    else:
        same(rows(), [6])
    same(Item.objects.get(client=1).word, "one")
    connection.close()


@check
def health_checks():
    """A connection that has died between two requests is replaced."""
    request(lambda: value("SELECT 1"))
    connection.connection.pgconn.finish()
    same(request(lambda: value("SELECT 2")), 2)
    with raises(ProgrammingError):
        request(lambda: value("SELECT * FROM nowhere"))
    same(request(lambda: value("SELECT 3")), 3)
    connection.close()


@check
def introspection():
    fresh_table()

    def view(number, turn):
        with connection.cursor() as cursor:
            same("django_items" in connection.introspection.table_names(cursor), True)
            same(len(connection.introspection.get_table_description(cursor, "django_items")), 5)

    each_client(view)


if __name__ == "__main__":
    main()

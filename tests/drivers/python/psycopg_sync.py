"""psycopg 3 with threads: prepared statements, pipelines, session state, COPY, cursors, cancel."""

import socket
import threading
from contextlib import contextmanager, suppress
from datetime import date

import psycopg
from psycopg import errors, pq, sql
from psycopg_pool import ConnectionPool

from scenario import CLIENTS, DIRECT, check, eventually, main, raises, same, together

TURNS = 25


def connect(**options):
    """A connection in autocommit mode; everything else is in the environment."""
    return psycopg.connect(autocommit=True, **options)


def value(conn, query, arguments=None, **options):
    """The first column of the first row."""
    return conn.execute(query, arguments, **options).fetchone()[0]


@contextmanager
def elsewhere():
    """Keeps the server connection that was used last busy, so that a pool has to use another one."""
    with connect() as other, other.transaction():
        other.execute("SELECT 1")
        yield


def fresh_table(conn, name, columns):
    conn.execute(f"DROP TABLE IF EXISTS {name}")
    conn.execute(f"CREATE TABLE {name} ({columns})")


def tuples(result):
    """What a libpq result of rows holds, as text; its error otherwise."""
    if result.status != pq.ExecStatus.TUPLES_OK:
        return result.error_field(pq.DiagnosticField.SQLSTATE)
    return [result.get_value(row, 0).decode() for row in range(result.ntuples)]


@check
def named_statements():
    """The same names (_pg3_0, ...) stand for other texts at every client."""

    def client(number):
        with connect(prepare_threshold=0) as conn:
            for turn in range(TURNS):
                same(value(conn, f"SELECT {number} * 1000 + %s::int4", [turn]), number * 1000 + turn)
                same(value(conn, f"SELECT 'client {number} ' || %s::text", [str(turn)]), f"client {number} {turn}")
                with conn.transaction():
                    same(value(conn, "SELECT %s::int4", [number]), number)
                    same(value(conn, "SELECT %s::int4", [turn]), turn)

    together(client)


@check
def many_statements():
    """More statements than psycopg keeps (it deallocates the oldest), and more than one server shall have."""

    def client(number):
        with connect(prepare_threshold=0) as conn:
            conn.prepared_max = 10
            for _ in range(2):
                for turn in range(30):
                    same(value(conn, f"SELECT {turn} + %s::int4", [number]), turn + number)

    together(client)


@check
def same_text_other_types():
    with connect(prepare_threshold=0) as conn, elsewhere():
        for argument in (1, "one", 1.5, None, b"one"):
            same(value(conn, "SELECT %s", [argument]), argument)


@check
def stale_plan():
    """Outside a transaction a pooler can prepare again what PostgreSQL refuses: the rows have another shape."""
    with connect(prepare_threshold=0) as conn, connect() as owner:
        fresh_table(owner, "stale", "id int4")
        owner.execute("INSERT INTO stale VALUES (1)")

        def ask():
            return conn.execute("SELECT * FROM stale").fetchall()

        same(ask(), [(1,)])
        owner.execute("ALTER TABLE stale ADD COLUMN word text DEFAULT 'new'")
        if DIRECT:
            with raises(errors.FeatureNotSupported):
                ask()
        else:
            same(ask(), [(1, "new")])
            with elsewhere():
                same(ask(), [(1, "new")])


@check
def stale_plan_in_transaction():
    """A refused plan ends the transaction and nothing else."""
    with connect(prepare_threshold=0) as conn, connect() as owner:
        fresh_table(owner, "stale_inside", "id int4")
        query = "SELECT * FROM stale_inside"
        same(conn.execute(query).fetchall(), [])
        owner.execute("ALTER TABLE stale_inside ADD COLUMN word text")
        owner.execute("INSERT INTO stale_inside VALUES (1, 'one')")
        try:
            with conn.transaction():
                same(conn.execute(query).fetchall(), [(1, "one")])
        except errors.FeatureNotSupported:
            pass
        conn.execute("DEALLOCATE ALL")
        same(conn.execute(query, prepare=False).fetchall(), [(1, "one")])


@check
def table_made_again():
    with connect(prepare_threshold=0) as conn, connect() as owner:
        for content in range(4):
            fresh_table(owner, "again", "id int4, word text")
            owner.execute("INSERT INTO again VALUES (%s, 'word')", [content])
            same(conn.execute("SELECT * FROM again WHERE word = %s", ["word"]).fetchall(), [(content, "word")])


@check
def failed_parse():
    """A name whose Parse failed is free; one that is taken is refused."""
    with connect() as conn:
        lib = conn.pgconn
        same(tuples(lib.prepare(b"mine", b"SELECT nothing FROM nowhere")), b"42P01")
        same(tuples(lib.exec_prepared(b"mine", [])), b"26000")
        same(lib.prepare(b"mine", b"SELECT 7").status, pq.ExecStatus.COMMAND_OK)
        same(tuples(lib.exec_prepared(b"mine", [])), ["7"])
        same(tuples(lib.prepare(b"mine", b"SELECT 8")), b"42P05")
        with elsewhere():
            same(tuples(lib.exec_prepared(b"mine", [])), ["7"])
            same(lib.describe_prepared(b"mine").nfields, 1)
            same(tuples(lib.prepare(b"mine", b"SELECT 8")), b"42P05")


@check
def deallocate():
    with connect() as conn:
        lib = conn.pgconn
        for word in ("DEALLOCATE mine", "DEALLOCATE PREPARE ALL", "deallocate all", "DISCARD ALL"):
            lib.prepare(b"mine", b"SELECT 1")
            lib.prepare(b"yours", b"SELECT 2")
            conn.execute(word, prepare=False)
            same(tuples(lib.exec_prepared(b"mine", [])), b"26000")
            kept = tuples(lib.exec_prepared(b"yours", []))
            same(kept, ["2"] if word == "DEALLOCATE mine" else b"26000")
            conn.execute("DEALLOCATE ALL")
            with raises(errors.InvalidSqlStatementName):
                conn.execute("DEALLOCATE mine")
            with elsewhere():
                same(tuples(lib.exec_prepared(b"mine", [])), b"26000")


@check
def prepare_in_sql():
    with connect() as conn:
        conn.execute("PREPARE doubled (int4) AS SELECT $1 * 2")
        for turn in range(5):
            with elsewhere():
                same(value(conn, f"EXECUTE doubled ({turn})"), turn * 2)
        with connect() as other, raises(errors.InvalidSqlStatementName):
            other.execute("EXECUTE doubled (1)")
        conn.execute("DEALLOCATE doubled")
        with raises(errors.InvalidSqlStatementName):
            conn.execute("EXECUTE doubled (1)")


@check
def unnamed_statement():
    """Parsed in one batch and bound in later ones, on whatever connection."""
    with connect() as conn, connect() as other:
        lib = conn.pgconn
        lib.prepare(b"", b"SELECT $1::int4 + 1")
        same(lib.describe_prepared(b"").nfields, 1)
        for turn in range(3):
            other.pgconn.prepare(b"", b"SELECT 'another'")
            with elsewhere():
                same(tuples(lib.exec_prepared(b"", [str(turn).encode()])), [str(turn + 1)])
        conn.execute("SELECT 'a simple query ends it'", prepare=False)


@check
def pipeline():
    def client(number):
        with connect(prepare_threshold=0) as conn:
            for _ in range(10):
                with conn.pipeline():
                    cursors = [conn.execute(f"SELECT {i} + %s::int4", [number]) for i in range(15)]
                same([cursor.fetchone()[0] for cursor in cursors], [i + number for i in range(15)])

    together(client)


@check
def pipeline_errors():
    """An error skips the rest of its batch, statements that were to be prepared included."""

    def client(number):
        with connect(prepare_threshold=0) as conn:
            for turn in range(8):
                with raises(errors.DivisionByZero), conn.pipeline() as pipe:
                    conn.execute(f"SELECT {number} + %s::int4", [turn])
                    conn.execute("SELECT 1 / %s::int4", [0])
                    conn.execute(f"SELECT 'skipped {turn}' || %s::text", ["!"])
                    pipe.sync()
                same(value(conn, f"SELECT 'skipped {turn}' || %s::text", ["!"]), f"skipped {turn}!")
                with raises(errors.SyntaxError), conn.pipeline():
                    conn.execute("SELECT FROM WHERE %s", [1])
                same(value(conn, f"SELECT {number} + %s::int4", [turn]), number + turn)

    together(client)


@check
def pipeline_transactions():
    with connect() as owner:
        fresh_table(owner, "piped", "id int4")

    def client(number):
        with connect(prepare_threshold=0) as conn, conn.pipeline():
            for turn in range(6):
                with suppress(errors.DivisionByZero), conn.transaction():
                    conn.execute("INSERT INTO piped VALUES (%s)", [number])
                    if turn % 2:
                        conn.execute("SELECT 1 / 0")

    together(client)
    with connect() as conn:
        same(value(conn, "SELECT count(*) FROM piped"), CLIENTS * 3)


@check
def batches():
    """executemany is a pipeline of its own."""
    with connect() as owner:
        fresh_table(owner, "batched", "client int4, turn int4 UNIQUE")

    def client(number):
        with connect() as conn, conn.cursor() as cursor:
            rows = [(number, number * 1000 + turn) for turn in range(100)]
            cursor.executemany("INSERT INTO batched VALUES (%s, %s) RETURNING turn", rows, returning=True)
            with raises(errors.UniqueViolation):
                cursor.executemany("INSERT INTO batched VALUES (%s, %s)", [(0, -number - 1), *rows])
            same(value(conn, "SELECT count(*) FROM batched WHERE client = %s AND turn >= 0", [number]), 100)

    together(client)


@check
def savepoints():
    with connect() as owner:
        fresh_table(owner, "saved", "client int4, word text")

    def client(number):
        with connect(prepare_threshold=0) as conn:
            for _ in range(5):
                with conn.transaction():
                    conn.execute("INSERT INTO saved VALUES (%s, %s)", [number, "outer"])
                    with raises(errors.UndefinedTable), conn.transaction():
                        conn.execute("INSERT INTO saved VALUES (%s, %s)", [number, "inner"])
                        conn.execute("SELECT * FROM nowhere WHERE %s", [True])
                    conn.execute("INSERT INTO saved VALUES (%s, %s)", [number, "after"])
                with raises(psycopg.Rollback, AssertionError), conn.transaction():
                    conn.execute("INSERT INTO saved VALUES (%s, %s)", [number, "rolled back"])
                    raise AssertionError
            query = "SELECT word, count(*) FROM saved WHERE client = %s GROUP BY 1 ORDER BY 1"
            same(conn.execute(query, [number]).fetchall(), [("after", 5), ("outer", 5)])

    together(client)


SETTINGS = {
    "search_path": 'pg_catalog, "odd ""name"', "work_mem": "{}MB", "statement_timeout": "{}s", "DateStyle": "SQL, DMY",
    "bytea_output": "escape", "client_min_messages": "error", "mine.tenant": "it's {} \\ µ€ \"x\"",
    "application_name": "client {}", "TimeZone": "Asia/Kathmandu", "default_transaction_isolation": "serializable",
    "extra_float_digits": "0", "IntervalStyle": "iso_8601", "role": "visitor", "plan_cache_mode": "force_custom_plan",
}  # fmt: skip


@check
def settings_are_kept():
    """Each client has some settings of its own, and the defaults of the rest."""
    with connect() as conn:
        conn.execute("SELECT set_config('mine.tenant', '', false)")
        defaults = {name: value(conn, "SELECT current_setting(%s)", [name]) for name in SETTINGS}

    def client(number):
        mine = {name: text.format(number + 61) for i, (name, text) in enumerate(SETTINGS.items()) if (i + number) % 3}
        with connect() as conn:
            for name, text in mine.items():
                conn.execute("SELECT set_config(%s, %s, false)", [name, text])
            for _ in range(10):
                for name, default in defaults.items():
                    found = value(conn, "SELECT current_setting(%s, true)", [name])
                    same((name, found or ""), (name, mine.get(name, default)))

    together(client)


@check
def set_in_sql():
    """SET in all its forms, and RESET."""

    def client(number):
        with connect() as conn:
            default = value(conn, "SHOW work_mem")
            conn.execute(f"SET work_mem = '{number + 64}MB'")
            conn.execute(f"SET SESSION lock_timeout TO {number + 1}")
            conn.execute("SET TIME ZONE 'Asia/Tokyo'")
            conn.execute("SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY")
            conn.execute("SET NAMES 'LATIN1'")
            for _ in range(10):
                same(value(conn, "SHOW work_mem"), f"{number + 64}MB")
                same(value(conn, "SHOW lock_timeout"), f"{number + 1}ms")
                same(value(conn, "SHOW TimeZone"), "Asia/Tokyo")
                same(value(conn, "SHOW transaction_read_only"), "on")
                same(value(conn, "SELECT 'é'"), "é")
            conn.execute("RESET work_mem")
            same(value(conn, "SHOW work_mem"), default)
            conn.execute("RESET ALL")
            same(value(conn, "SHOW lock_timeout"), "0")
            same(value(conn, "SHOW client_encoding"), "UTF8")

    together(client)


@check
def set_for_a_transaction():
    """SET LOCAL, set_config(..., true) and what is rolled back are gone with the transaction."""

    def client(number):
        with connect() as conn:
            default = value(conn, "SHOW work_mem")
            for _ in range(8):
                with conn.transaction(force_rollback=number % 2 == 0):
                    conn.execute("SET LOCAL work_mem = '77MB'")
                    conn.execute("SELECT set_config('lock_timeout', '77', true)")
                    same(value(conn, "SHOW work_mem"), "77MB")
                with conn.transaction(force_rollback=True):
                    conn.execute("SET work_mem = '78MB'")
                    same(value(conn, "SHOW work_mem"), "78MB")
                same(value(conn, "SHOW work_mem"), default)
                same(value(conn, "SHOW lock_timeout"), "0")

    together(client)


@check
def set_role():
    def client(number):
        role = "visitor" if number % 2 else "app"
        with connect() as conn:
            conn.execute(f"SET ROLE {role}")
            for _ in range(15):
                same(conn.execute("SELECT current_user, session_user").fetchone(), (role, "app"))
            conn.execute("RESET ROLE")
            same(value(conn, "SELECT current_user"), "app")

    together(client)


@check
def search_path_of_each():
    """The same prepared text means another table for each client."""
    with connect() as owner:
        for number in range(CLIENTS):
            owner.execute(f"DROP SCHEMA IF EXISTS tenant{number} CASCADE")
            owner.execute(f"CREATE SCHEMA tenant{number}")
            owner.execute(f"CREATE TABLE tenant{number}.place AS SELECT 'tenant {number}' AS name")

    def client(number):
        with connect(prepare_threshold=0) as conn:
            conn.execute(f"SET search_path = tenant{number}")
            for _ in range(TURNS):
                same(value(conn, "SELECT name FROM place"), f"tenant {number}")
            other = (number + 1) % CLIENTS
            conn.execute(f"SET search_path = tenant{other}")
            same(value(conn, "SELECT name FROM place"), f"tenant {other}")

    together(client)


@check
def startup_options():
    def client(number):
        options = f"-c search_path=start{number},public -c work_mem={number + 64}MB -c mine.word=a\\ b"
        with connect(options=options, application_name=f"app {number}") as conn:
            for _ in range(8):
                same(value(conn, "SHOW search_path"), f"start{number},public")
                same(value(conn, "SHOW work_mem"), f"{number + 64}MB")
                same(value(conn, "SHOW mine.word"), "a b")
                same(value(conn, "SHOW application_name"), f"app {number}")

    together(client)


@check
def reset_to_startup_options():
    """RESET and DISCARD ALL go back to what the startup packet has asked for."""

    def client(number):
        with connect(options=f"-c work_mem={number + 64}MB") as conn:
            for word in ("RESET work_mem", "RESET ALL", "SET work_mem TO DEFAULT", "DISCARD ALL"):
                conn.execute("SET work_mem = '1MB'")
                conn.execute(word)
                same((word, value(conn, "SHOW work_mem")), (word, f"{number + 64}MB"))

    together(client)


@check
def temporary_tables():
    with connect() as conn, connect() as other:
        conn.execute("CREATE TEMP TABLE scratch (id int4)")
        for turn in range(5):
            conn.execute("INSERT INTO scratch VALUES (%s)", [turn])
            with raises(errors.UndefinedTable):
                other.execute("SELECT * FROM scratch")
        same(value(conn, "SELECT count(*) FROM scratch"), 5)
        conn.execute("DISCARD TEMP")
        with raises(errors.UndefinedTable):
            conn.execute("SELECT * FROM scratch")
        with conn.transaction():
            conn.execute("CREATE TEMP TABLE brief (id int4) ON COMMIT DROP")
        with raises(errors.UndefinedTable):
            conn.execute("SELECT * FROM brief")


@check
def listen_and_notify():
    with connect() as listener, connect() as sender:
        listener.execute("LISTEN news")
        for turn in range(3):
            sender.execute("SELECT pg_notify('news', %s)", [str(turn)])
            received = list(listener.notifies(timeout=10, stop_after=1))
            same([(note.channel, note.payload) for note in received], [("news", str(turn))])
        listener.execute("UNLISTEN *")
        sender.execute("NOTIFY news, 'unheard'")
        listener.execute("SELECT 1")
        same(list(listener.notifies(timeout=0.1)), [])


@check
def pid_of_the_notifier():
    """A notification names the pid that its sender was told."""
    with connect() as listener, connect() as sender:
        listener.execute("LISTEN news")
        sender.execute("NOTIFY news")
        same([note.pid for note in listener.notifies(timeout=10, stop_after=1)], [sender.info.backend_pid])


@check
def advisory_locks():
    with connect() as holder, connect() as other:
        holder.execute("SELECT pg_advisory_lock(42)")
        for _ in range(4):
            same(value(other, "SELECT pg_try_advisory_lock(42)"), False)
            holder.execute("SELECT 'another transaction'")
        same(value(holder, "SELECT pg_advisory_unlock(42)"), True)
        same(value(other, "SELECT pg_try_advisory_lock(42)"), True)
        same(value(other, "SELECT pg_advisory_unlock(42)"), True)
        same(value(holder, "SELECT pg_try_advisory_xact_lock(42)"), True)
        same(value(other, "SELECT pg_try_advisory_xact_lock(42)"), True)


@check
def lock_of_one_who_left():
    with connect() as holder:
        holder.execute("SELECT pg_advisory_lock(43)")
    with connect() as other:
        eventually("the lock is free", lambda: value(other, "SELECT pg_try_advisory_lock(43)"))


@check
def server_cursors():
    def client(number):
        with connect(prepare_threshold=0) as conn, conn.transaction(), conn.cursor("mine") as cursor:
            cursor.itersize = 7
            cursor.execute("SELECT i + %s FROM generate_series(1, 50) i", [number])
            same([row[0] for row in cursor], [i + number for i in range(1, 51)])

    together(client)


@check
def cursor_with_hold():
    with connect() as conn:
        with conn.cursor("held", withhold=True, scrollable=True) as cursor:
            cursor.execute("SELECT * FROM generate_series(1, 30)")
            for _ in range(3):
                with elsewhere():
                    same(len(cursor.fetchmany(10)), 10)
            cursor.scroll(0, mode="absolute")
            same(cursor.fetchone(), (1,))
        conn.execute("DECLARE other CURSOR WITH HOLD FOR SELECT 1")
        conn.execute("CLOSE ALL")
        with raises(errors.InvalidCursorName):
            conn.execute("FETCH other")


@check
def rows_one_by_one():
    def client(number):
        with connect() as conn, conn.cursor() as cursor:
            rows = cursor.stream("SELECT i + %s FROM generate_series(1, 500) i", [number])
            same(sum(row[0] for row in rows), 125250 + 500 * number)

    together(client)


@check
def copy_in_and_out():
    with connect() as owner:
        fresh_table(owner, "copied", "client int4, word text")

    def client(number):
        with connect() as conn, conn.cursor() as cursor:
            with cursor.copy("COPY copied FROM STDIN") as copy:
                for turn in range(200):
                    copy.write_row((number, f"word {turn}"))
            with raises(errors.InvalidTextRepresentation), cursor.copy("COPY copied FROM STDIN") as copy:
                copy.write("no number\tword\n")
            with raises(ZeroDivisionError), cursor.copy("COPY copied FROM STDIN") as copy:
                copy.write_row((number, "given up"))
                raise ZeroDivisionError
            with cursor.copy(f"COPY (SELECT * FROM copied WHERE client = {number}) TO STDOUT (FORMAT binary)") as copy:
                copy.set_types(["int4", "text"])
                same(len(list(copy.rows())), 200)
            with raises(errors.DivisionByZero), cursor.copy("COPY (SELECT 1 / 0) TO STDOUT") as copy:
                list(copy)

    together(client)


@check
def large_values():
    text = "0123456789abcdef" * 512 * 1024

    def client(number):
        with connect(prepare_threshold=0) as conn:
            for binary in (False, True):
                found = value(conn, "SELECT %s::text || %s", [text, str(number)], binary=binary)
                same((len(found), found[-4:]), (len(text) + len(str(number)), (text + str(number))[-4:]))
                same(len(value(conn, "SELECT %b::bytea", [text.encode()], binary=binary)), len(text))

    together(client, 4)


@check
def many_rows():
    def client(number):
        with connect(prepare_threshold=0) as conn:
            rows = conn.execute("SELECT i, 'row ' || i FROM generate_series(1, %s) i", [20000 + number]).fetchall()
            same((len(rows), rows[-1]), (20000 + number, (20000 + number, f"row {20000 + number}")))

    together(client)


@check
def formats():
    """Text and binary, in and out."""
    with connect(prepare_threshold=0) as conn:
        for binary in (False, True):
            for literal in ("%s", "%t", "%b"):
                query = f"SELECT {literal}::int4, {literal}::text, {literal}::float8, {literal}::date"
                row = (1, "words", 1.5, date(2026, 1, 31))
                same(conn.execute(query, row, binary=binary).fetchone(), row)


def running(conn, mark):
    return (
        value(conn, "SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND query LIKE %s", [f"{mark}%"]) > 0
    )


def stopped_by(conn, other, way):
    """Whether a query that sleeps ends with 57014 when `way()` is done while it runs."""

    def stop():
        eventually("the query runs", lambda: running(other, f"/* {way.__name__} */ SELECT pg_sleep"))
        way()

    thread = threading.Thread(target=stop)
    thread.start()
    with raises(errors.QueryCanceled):
        conn.execute(f"/* {way.__name__} */ SELECT pg_sleep(5)")
    thread.join()
    same(value(conn, "SELECT 1"), 1)


@check
def cancel():
    with connect() as conn, connect() as other:
        stopped_by(conn, other, conn.cancel_safe)


@check
def cancel_by_pid():
    """As pgAdmin and others do it, with the pid that the client was told."""
    with connect() as conn, connect() as other:

        def by_pid():
            other.execute(f"SELECT pg_cancel_backend({conn.info.backend_pid})")

        stopped_by(conn, other, by_pid)


@check
def killed_in_mid_transaction():
    """A client that vanishes harms nobody, and what it had begun is undone."""
    with connect() as owner:
        fresh_table(owner, "killed", "client int4 PRIMARY KEY")

    def client(number):
        conn = connect()
        conn.execute("BEGIN")
        conn.execute("INSERT INTO killed VALUES (0)")
        with socket.socket(fileno=conn.pgconn.socket) as sock:
            sock.shutdown(socket.SHUT_RDWR)
            sock.detach()
        with connect() as survivor:
            same(value(survivor, "SELECT %s::int4", [number]), number)

    together(client)
    with connect() as conn:
        conn.execute("INSERT INTO killed VALUES (0)")
        same(value(conn, "SELECT count(*) FROM killed"), 1)


@check
def notices():
    with connect() as conn:
        heard = []
        conn.add_notice_handler(lambda notice: heard.append((notice.severity, notice.message_primary)))
        for turn in range(3):
            with elsewhere():
                conn.execute(f"DO $$ BEGIN RAISE WARNING 'turn {turn}'; END $$")
        same(heard, [("WARNING", f"turn {turn}") for turn in range(3)])


@check
def multiple_statements():
    """One simple query of many statements, with an error among them."""
    with connect() as conn:
        fresh_table(conn, "several", "id int4")
        with raises(errors.DivisionByZero):
            conn.execute("INSERT INTO several VALUES (1); SELECT 1 / 0; INSERT INTO several VALUES (2)")
        conn.execute(
            "INSERT INTO several VALUES (3); COMMIT; BEGIN; INSERT INTO several VALUES (4); ROLLBACK; SELECT 5"
        )
        same(value(conn, "SELECT array_agg(id) FROM several"), [3])


@check
def two_phase():
    """Prepared transactions are refused by this server's settings, and that is all that happens."""
    with connect() as conn:
        with raises(errors.ObjectNotInPrerequisiteState):
            conn.execute("BEGIN; SELECT 1; PREPARE TRANSACTION 'two'")
        conn.rollback()
        same(value(conn, "SELECT 1"), 1)


@check
def pool():
    """psycopg_pool's own checks and resets."""

    def reset(conn):
        conn.execute("DISCARD ALL")
        conn.rollback()

    kwargs = {"prepare_threshold": 0, "autocommit": True}
    with ConnectionPool(
        min_size=4, max_size=8, kwargs=kwargs, reset=reset, check=ConnectionPool.check_connection
    ) as pool:

        def client(number):
            for turn in range(10):
                with pool.connection() as conn:
                    same(value(conn, "SHOW search_path"), '"$user", public')
                    conn.execute(sql.SQL("SET search_path = {}").format(sql.Identifier(f"s{number}")))
                    same(value(conn, "SELECT %s::int4 + %s::int4", [number, turn]), number + turn)
                    same(value(conn, "SHOW search_path"), f"s{number}")

        together(client)


if __name__ == "__main__":
    main()

"""SQLAlchemy on psycopg (sync) and on asyncpg: pools and their resets, savepoints, server-side cursors."""

import os

from sqlalchemy import Integer, String, bindparam, create_engine, event, func, insert, inspect, select, text
from sqlalchemy.engine import URL
from sqlalchemy.exc import DBAPIError, IntegrityError, ProgrammingError
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from scenario import CLIENTS, check, main, raises, same, together, together_async

TURNS = 10


class Base(DeclarativeBase):
    """The models."""


class Item(Base):
    """A row of one client's."""

    __tablename__ = "items"
    id: Mapped[int] = mapped_column(primary_key=True)
    client: Mapped[int] = mapped_column(Integer, index=True)
    word: Mapped[str] = mapped_column(String(50))


def url(driver):
    return URL.create(
        f"postgresql+{driver}",
        os.environ["PGUSER"],
        os.environ["PGPASSWORD"],
        os.environ["PGHOST"],
        int(os.environ["PGPORT"]),
        os.environ["PGDATABASE"],
    )


def engine(prepare_threshold=0, **options):
    """On psycopg, which prepares from the first execution on."""
    connect_args = {"prepare_threshold": prepare_threshold, **options.pop("connect_args", {})}
    return create_engine(url("psycopg"), pool_size=6, max_overflow=8, connect_args=connect_args, **options)


def async_engine(**options):
    return create_async_engine(url("asyncpg"), pool_size=6, max_overflow=8, **options)


def fresh_tables(database):
    Base.metadata.drop_all(database)
    Base.metadata.create_all(database)


@check
def orm():
    database = engine()
    fresh_tables(database)

    def client(number):
        for turn in range(TURNS):
            with Session(database) as session:
                session.add_all(Item(client=number, word=f"{turn} {i}") for i in range(20))
                session.commit()
                found = session.scalars(select(Item).where(Item.client == number, Item.word == f"{turn} 7")).one()
                found.word = "changed"
                session.flush()
                session.rollback()
                same(found.word, f"{turn} 7")
                same(session.scalar(select(func.count()).where(Item.client == number)), 20 * (turn + 1))

    together(client)
    database.dispose()


@check
def savepoints():
    database = engine()
    fresh_tables(database)

    def client(number):
        with Session(database) as session:
            for turn in range(TURNS):
                session.add(Item(id=number * 100 + turn, client=number, word="outer"))
                session.flush()
                with raises(IntegrityError), session.begin_nested():
                    session.execute(insert(Item), [{"id": number * 100 + turn, "client": number, "word": "inner"}])
                session.commit()
            same(session.scalar(select(func.count()).where(Item.client == number)), TURNS)

    together(client)
    database.dispose()


@check
def stale_plans_after_migrations():
    """What the application sees when a migration runs beside it: nothing."""
    database = engine(isolation_level="AUTOCOMMIT")
    with database.connect() as conn, database.connect() as owner:
        owner.execute(text("DROP TABLE IF EXISTS migrated"))
        owner.execute(text("CREATE TABLE migrated AS SELECT 1 AS id"))
        query = text("SELECT id FROM migrated WHERE id = :id")
        same(conn.execute(query, {"id": 1}).all(), [(1,)])
        owner.execute(text("ALTER TABLE migrated ADD COLUMN word text DEFAULT 'new'"))
        same(conn.execute(query, {"id": 1}).all(), [(1,)])
        owner.execute(text("DROP TABLE migrated"))
        with raises(ProgrammingError):
            conn.execute(query, {"id": 1})
        owner.execute(text("CREATE TABLE migrated AS SELECT 1 AS id"))
        same(conn.execute(query, {"id": 1}).all(), [(1,)])
    database.dispose()


@check
def rows_one_by_one():
    """stream_results is a server-side cursor."""
    database = engine()

    def client(number):
        with database.connect().execution_options(stream_results=True, max_row_buffer=7) as conn:
            query = text("SELECT i + :number FROM generate_series(1, 200) i")
            same(sum(conn.execute(query, {"number": number}).scalars()), 20100 + 200 * number)

    together(client)
    database.dispose()


@check
def settings_of_each_connection():
    """As applications set them: when a connection is new, and for one tenant at checkout."""
    database = engine(connect_args={"options": "-c lock_timeout=7s -c search_path=shop,public"})

    @event.listens_for(database, "connect")
    def set_memory(connection, _):
        connection.execute("SET work_mem = '77MB'")
        connection.commit()

    def client(number):
        for _ in range(TURNS):
            with database.begin() as conn:
                conn.execute(text("SELECT set_config('mine.tenant', :tenant, true)"), {"tenant": f"tenant {number}"})
                same(conn.scalar(text("SHOW work_mem")), "77MB")
                same(conn.scalar(text("SHOW lock_timeout")), "7s")
                same(conn.scalar(text("SHOW search_path")), "shop,public")
                same(conn.scalar(text("SHOW mine.tenant")), f"tenant {number}")

    together(client)
    with engine().connect() as conn:
        same(conn.scalar(text("SHOW work_mem")), "4MB")
    database.dispose()


@check
def reset_on_return():
    """The pool rolls back by itself; an application can have it do more."""
    database = engine(pool_reset_on_return=None)

    @event.listens_for(database, "reset")
    def reset(connection, *_):
        connection.rollback()
        connection.autocommit = True
        connection.execute("DISCARD ALL", prepare=False)
        connection.prepare_threshold = None
        connection.autocommit = False

    def client(number):
        for turn in range(TURNS):
            with database.connect() as conn:
                same(conn.scalar(text("SHOW lock_timeout")), "0")
                conn.execute(text("SET lock_timeout = 7"))
                conn.commit()
                same(conn.scalar(text("SELECT CAST(:n AS int4)"), {"n": number + turn}), number + turn)

    together(client)
    database.dispose()


@check
def isolation_levels():
    database = engine()

    def client(number):
        level = ["SERIALIZABLE", "REPEATABLE READ", "READ COMMITTED", "AUTOCOMMIT"][number % 4]
        for _ in range(TURNS):
            with database.connect().execution_options(isolation_level=level) as conn:
                expected = "read committed" if level == "AUTOCOMMIT" else level.lower()
                same(conn.scalar(text("SHOW transaction_isolation")), expected)

    together(client)
    database.dispose()


@check
def reflection():
    database = engine()
    fresh_tables(database)

    def client(_):
        found = inspect(database)
        same([column["name"] for column in found.get_columns("items")], ["id", "client", "word"])
        same(len(found.get_indexes("items")), 1)

    together(client, 6)
    database.dispose()


@check
def temporary_tables():
    database = engine()
    with database.connect() as conn, database.connect() as other:
        conn.execute(text("CREATE TEMP TABLE scratch (id int4)"))
        conn.commit()
        for turn in range(3):
            conn.execute(text("INSERT INTO scratch VALUES (:id)"), {"id": turn})
            conn.commit()
            with raises(ProgrammingError):
                other.execute(text("SELECT * FROM scratch"))
            other.rollback()
        same(conn.scalar(text("SELECT count(*) FROM scratch")), 3)
        conn.execute(text("DROP TABLE scratch"))
        conn.commit()
    database.dispose()


@check
def pre_ping():
    database = engine(pool_pre_ping=True)

    def client(number):
        for turn in range(TURNS):
            with database.connect() as conn:
                same(conn.scalar(text("SELECT CAST(:n AS int4)"), {"n": number + turn}), number + turn)

    together(client)
    database.dispose()


@check
async def async_orm():
    """On asyncpg, whose names SQLAlchemy leaves as they are: __asyncpg_stmt_1__ and so on."""
    database = async_engine()
    async with database.begin() as conn:
        await conn.run_sync(fresh_tables)

    async def client(number):
        for turn in range(TURNS):
            async with AsyncSession(database) as session:
                session.add_all(Item(client=number, word=f"{turn} {i}") for i in range(20))
                await session.commit()
                query = select(func.count()).where(Item.client == number, Item.word != "none")
                same(await session.scalar(query), 20 * (turn + 1))
                with raises(DBAPIError):
                    await session.execute(text("SELECT 1 / CAST(:n AS int4)"), {"n": 0})
                await session.rollback()

    await together_async(client)
    async with AsyncSession(database) as session:
        same(await session.scalar(select(func.count(Item.id))), CLIENTS * TURNS * 20)
    await database.dispose()


@check
async def async_rows_one_by_one():
    database = async_engine()

    async def client(number):
        async with database.connect() as conn:
            query = text("SELECT i + CAST(:n AS int4) FROM generate_series(1, 200) i")
            result = await conn.stream(query, {"n": number})
            same(sum([row[0] async for row in result]), 20100 + 200 * number)

    await together_async(client)
    await database.dispose()


@check
async def async_stale_plan():
    """SQLAlchemy's own cache of prepared statements; a change that it cannot know of is its user's to try again."""
    database = async_engine(isolation_level="AUTOCOMMIT")
    async with database.connect() as conn, database.connect() as owner:
        await owner.execute(text("DROP TABLE IF EXISTS retyped"))
        await owner.execute(text("CREATE TABLE retyped AS SELECT 1 AS id"))
        query = select(text("*")).select_from(text("retyped")).where(bindparam("one", 1) == 1)
        same((await conn.execute(query)).all(), [(1,)])
        await owner.execute(text("ALTER TABLE retyped ALTER COLUMN id TYPE float4 USING id + 0.5"))
        try:
            same((await conn.execute(query)).all(), [(1.5,)])
        except DBAPIError:
            same((await conn.execute(query)).all(), [(1.5,)])
    await database.dispose()


if __name__ == "__main__":
    main()

// pgjdbc: statements that get names after a few executions, row limits, batches, COPY, cancel; run as one source file.

import java.io.ByteArrayInputStream;
import java.io.ByteArrayOutputStream;
import java.nio.charset.StandardCharsets;
import java.sql.Connection;
import java.sql.DriverManager;
import java.sql.PreparedStatement;
import java.sql.ResultSet;
import java.sql.SQLException;
import java.sql.Savepoint;
import java.sql.Statement;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Objects;
import java.util.Properties;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.Future;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.TimeoutException;
import org.postgresql.PGConnection;
import org.postgresql.PGNotification;

public class Jdbc {
    interface Check {
        void run() throws Exception;
    }

    interface Client {
        void run(int number) throws Exception;
    }

    static final int CLIENTS = 12;
    static final int LIMIT_SECONDS = 20;
    static final Map<String, Check> CHECKS = new LinkedHashMap<>();
    static final ExecutorService THREADS = Executors.newCachedThreadPool();

    static {
        CHECKS.put("named_statements", Jdbc::namedStatements);
        CHECKS.put("simple_queries", Jdbc::simpleQueries);
        CHECKS.put("stale_plan", Jdbc::stalePlan);
        CHECKS.put("table_made_again", Jdbc::tableMadeAgain);
        CHECKS.put("failed_statements", Jdbc::failedStatements);
        CHECKS.put("deallocate", Jdbc::deallocate);
        CHECKS.put("batches", Jdbc::batches);
        CHECKS.put("savepoints", Jdbc::savepoints);
        CHECKS.put("autosave", Jdbc::autosave);
        CHECKS.put("rows_in_portions", Jdbc::rowsInPortions);
        CHECKS.put("cursor_with_hold", Jdbc::cursorWithHold);
        CHECKS.put("settings_are_kept", Jdbc::settingsAreKept);
        CHECKS.put("startup_options", Jdbc::startupOptions);
        CHECKS.put("search_path_of_each", Jdbc::searchPathOfEach);
        CHECKS.put("temporary_tables", Jdbc::temporaryTables);
        CHECKS.put("listen_and_notify", Jdbc::listenAndNotify);
        CHECKS.put("advisory_locks", Jdbc::advisoryLocks);
        CHECKS.put("copy_in_and_out", Jdbc::copyInAndOut);
        CHECKS.put("large_values", Jdbc::largeValues);
        CHECKS.put("many_rows", Jdbc::manyRows);
        CHECKS.put("cancel", Jdbc::cancel);
        CHECKS.put("killed_in_mid_transaction", Jdbc::killedInMidTransaction);
        CHECKS.put("notices", Jdbc::notices);
        CHECKS.put("metadata", Jdbc::metadata);
    }

    public static void main(String[] wanted) {
        int failed = 0;
        CHECKS.keySet().removeIf(name -> wanted.length > 0 && !List.of(wanted).contains(name));
        for (Map.Entry<String, Check> check : CHECKS.entrySet()) {
            String why = outcome(check.getValue());
            failed += why == null ? 0 : 1;
            System.out.println(why == null ? "ok " + check.getKey() : "not ok " + check.getKey() + " - " + why);
        }
        System.out.println("1.." + CHECKS.size());
        // A check that hangs has left a thread behind.
        Runtime.getRuntime().halt(failed == 0 ? 0 : 1);
    }

    static String outcome(Check check) {
        Future<Void> running = THREADS.submit(() -> {
            check.run();
            return null;
        });
        try {
            running.get(LIMIT_SECONDS, TimeUnit.SECONDS);
            return null;
        } catch (TimeoutException late) {
            return "not done within " + LIMIT_SECONDS + " s";
        } catch (InterruptedException | ExecutionException error) {
            Throwable cause = error;
            while (cause.getCause() != null && !(cause instanceof SQLException)) {
                cause = cause.getCause();
            }
            List<String> lines = new ArrayList<>();
            for (StackTraceElement frame : cause.getStackTrace()) {
                if ("Jdbc.java".equals(frame.getFileName())) {
                    lines.add(String.valueOf(frame.getLineNumber()));
                }
            }
            return cause.toString().replaceAll("\\s+", " ") + " (line " + String.join(", ", lines) + ")";
        }
    }

    static Connection connect(String... properties) throws SQLException {
        Properties all = new Properties();
        all.setProperty("user", System.getenv("PGUSER"));
        all.setProperty("password", System.getenv("PGPASSWORD"));
        all.setProperty("sslmode", System.getenv("PGSSLMODE"));
        // Named from the first execution on.
        all.setProperty("prepareThreshold", "1");
        for (int i = 0; i < properties.length; i += 2) {
            all.setProperty(properties[i], properties[i + 1]);
        }
        String server = System.getenv("PGHOST") + ":" + System.getenv("PGPORT");
        return DriverManager.getConnection("jdbc:postgresql://" + server + "/" + System.getenv("PGDATABASE"), all);
    }

    /** Keeps the server connection that was used last busy until it is closed, so that a pool has to use another one. */
    static Connection elsewhere() throws SQLException {
        Connection other = connect();
        other.setAutoCommit(false);
        execute(other, "SELECT 1");
        return other;
    }

    static void execute(Connection connection, String sql) throws SQLException {
        try (Statement statement = connection.createStatement()) {
            statement.execute(sql);
        }
    }

    /** The first column of the first row, by a prepared statement. */
    static Object value(Connection connection, String sql, Object... arguments) throws SQLException {
        try (PreparedStatement statement = connection.prepareStatement(sql)) {
            for (int i = 0; i < arguments.length; i++) {
                statement.setObject(i + 1, arguments[i]);
            }
            try (ResultSet rows = statement.executeQuery()) {
                rows.next();
                return rows.getObject(1);
            }
        }
    }

    static void same(Object found, Object expected) {
        if (!Objects.equals(found, expected)) {
            throw new AssertionError(found + " is not " + expected);
        }
    }

    static void fails(String sqlState, Check check) throws Exception {
        try {
            check.run();
        } catch (SQLException error) {
            if (!sqlState.equals(error.getSQLState())) {
                throw error;
            }
            return;
        }
        throw new AssertionError("no error " + sqlState);
    }

    static void together(Client client) throws Exception {
        List<Future<Void>> clients = new ArrayList<>();
        for (int i = 0; i < CLIENTS; i++) {
            int number = i;
            clients.add(THREADS.submit(() -> {
                client.run(number);
                return null;
            }));
        }
        for (Future<Void> each : clients) {
            each.get();
        }
    }

    /** The same names (S_1, ...) stand for other texts at every client. */
    static void namedStatements() throws Exception {
        together(number -> {
            try (Connection connection = connect()) {
                for (int turn = 0; turn < 25; turn++) {
                    same(value(connection, "SELECT " + number + " * 1000 + ?::int4", turn), number * 1000 + turn);
                    connection.setAutoCommit(false);
                    same(value(connection, "SELECT '" + number + " ' || ?::text", "" + turn), number + " " + turn);
                    connection.commit();
                    connection.setAutoCommit(true);
                }
            }
        });
    }

    static void simpleQueries() throws Exception {
        together(number -> {
            try (Connection connection = connect("preferQueryMode", "simple")) {
                for (int turn = 0; turn < 25; turn++) {
                    same(value(connection, "SELECT ? + ?", number, turn), number + turn);
                }
            }
        });
    }

    /** An int4 that became a float4 is as long in binary: rows must not come unannounced. */
    static void stalePlan() throws Exception {
        try (Connection connection = connect(); Connection owner = connect()) {
            execute(owner, "DROP TABLE IF EXISTS stale; CREATE TABLE stale AS SELECT 1 AS id");
            PreparedStatement statement = connection.prepareStatement("SELECT * FROM stale WHERE ? = 1");
            statement.setInt(1, 1);
            for (int turn = 0; turn < 8; turn++) {
                ResultSet rows = statement.executeQuery();
                rows.next();
                same(rows.getInt(1), 1);
            }
            execute(owner, "ALTER TABLE stale ALTER COLUMN id TYPE float4 USING id + 0.5");
            try (ResultSet rows = statement.executeQuery()) {
                rows.next();
                same(rows.getObject(1), 1.5f);
            } catch (SQLException refused) {
                same(refused.getSQLState(), "0A000");
            }
            try (Connection other = elsewhere(); ResultSet rows = statement.executeQuery()) {
                rows.next();
                same(rows.getObject(1), 1.5f);
            }
        }
    }

    static void tableMadeAgain() throws Exception {
        try (Connection connection = connect(); Connection owner = connect()) {
            for (int content = 0; content < 8; content++) {
                execute(owner, "DROP TABLE IF EXISTS again; CREATE TABLE again AS SELECT " + content + " AS id");
                same(value(connection, "SELECT id FROM again WHERE ? = 1", 1), content);
            }
        }
    }

    static void failedStatements() throws Exception {
        together(number -> {
            try (Connection connection = connect()) {
                for (int turn = 0; turn < 10; turn++) {
                    fails("42601", () -> value(connection, "SELECT FROM WHERE ?", 1));
                    fails("22012", () -> value(connection, "SELECT 1 / ?", 0));
                    same(value(connection, "SELECT 12 / ?", 4), 3);
                    same(value(connection, "SELECT " + number + " + ?", turn), number + turn);
                }
            }
        });
    }

    /** pgjdbc sees the command tags and prepares again by itself. */
    static void deallocate() throws Exception {
        try (Connection connection = connect()) {
            for (String word : new String[] {"DEALLOCATE ALL", "DISCARD ALL"}) {
                for (int turn = 0; turn < 3; turn++) {
                    same(value(connection, "SELECT 1 + ?", turn), turn + 1);
                    execute(connection, word);
                    try (Connection other = elsewhere()) {
                        same(value(connection, "SELECT 1 + ?", turn), turn + 1);
                    }
                }
            }
        }
    }

    static void batches() throws Exception {
        try (Connection owner = connect()) {
            execute(owner, "DROP TABLE IF EXISTS batched; CREATE TABLE batched (client int4, turn int4 UNIQUE)");
        }
        together(number -> {
            try (Connection connection = connect("reWriteBatchedInserts", String.valueOf(number % 2 == 0))) {
                String sql = "INSERT INTO batched VALUES (?, ?)";
                try (PreparedStatement statement = connection.prepareStatement(sql, Statement.RETURN_GENERATED_KEYS)) {
                    for (int turn = 0; turn < 300; turn++) {
                        statement.setInt(1, number);
                        statement.setInt(2, number * 1000 + turn);
                        statement.addBatch();
                    }
                    same(statement.executeBatch().length, 300);
                    statement.setInt(1, number);
                    statement.setInt(2, -1 - number);
                    statement.addBatch();
                    statement.setInt(1, number);
                    statement.setInt(2, number * 1000);
                    statement.addBatch();
                    fails("23505", statement::executeBatch);
                }
                same(value(connection, "SELECT count(*) FROM batched WHERE client = ?", number), 300L);
            }
        });
    }

    static void savepoints() throws Exception {
        together(number -> {
            try (Connection connection = connect()) {
                connection.setAutoCommit(false);
                connection.setTransactionIsolation(Connection.TRANSACTION_SERIALIZABLE);
                for (int turn = 0; turn < 5; turn++) {
                    same(value(connection, "SHOW transaction_isolation"), "serializable");
                    Savepoint savepoint = connection.setSavepoint();
                    fails("22012", () -> value(connection, "SELECT 1 / ?", 0));
                    fails("25P02", () -> value(connection, "SELECT 1 + ?", 0));
                    connection.rollback(savepoint);
                    same(value(connection, "SELECT 1 + ?", number), number + 1);
                    connection.commit();
                }
            }
        });
    }

    /** pgjdbc puts a savepoint before each statement, in the same batch. */
    static void autosave() throws Exception {
        together(number -> {
            try (Connection connection = connect("autosave", "always")) {
                connection.setAutoCommit(false);
                for (int turn = 0; turn < 5; turn++) {
                    same(value(connection, "SELECT 1 + ?", number), number + 1);
                    fails("22012", () -> value(connection, "SELECT 1 / ?", 0));
                    same(value(connection, "SELECT 2 + ?", number), number + 2);
                    connection.commit();
                }
            }
        });
    }

    /** Portals with row limits, over many Syncs of one transaction. */
    static void rowsInPortions() throws Exception {
        together(number -> {
            try (Connection connection = connect()) {
                connection.setAutoCommit(false);
                String sql = "SELECT i + ? FROM generate_series(1, 50) i";
                try (PreparedStatement statement = connection.prepareStatement(sql)) {
                    statement.setFetchSize(7);
                    for (int turn = 0; turn < 3; turn++) {
                        statement.setInt(1, number);
                        ResultSet rows = statement.executeQuery();
                        int count = 0;
                        while (rows.next()) {
                            same(rows.getInt(1), number + ++count);
                        }
                        same(count, 50);
                    }
                }
                connection.commit();
            }
        });
    }

    static void cursorWithHold() throws Exception {
        try (Connection connection = connect()) {
            execute(connection, "DECLARE held CURSOR WITH HOLD FOR SELECT * FROM generate_series(1, 30)");
            for (int turn = 0; turn < 3; turn++) {
                try (Connection other = elsewhere()) {
                    same(value(connection, "FETCH 10 FROM held"), turn * 10 + 1);
                }
            }
            execute(connection, "CLOSE held");
            fails("34000", () -> execute(connection, "FETCH 10 FROM held"));
        }
    }

    static void settingsAreKept() throws Exception {
        together(number -> {
            try (Connection connection = connect("readOnlyMode", "always")) {
                boolean mine = number % 3 == 0;
                String memory = mine ? (number + 64) + "MB" : "4MB";
                if (mine) {
                    execute(connection, "SET work_mem = '" + memory + "'");
                    connection.setSchema("s" + number);
                    connection.setReadOnly(true);
                    connection.setClientInfo("ApplicationName", "app " + number);
                }
                for (int turn = 0; turn < 8; turn++) {
                    same(value(connection, "SHOW work_mem"), memory);
                    same(value(connection, "SHOW search_path"), mine ? "s" + number : "\"$user\", public");
                    same(value(connection, "SHOW transaction_read_only"), mine ? "on" : "off");
                    if (mine) {
                        same(value(connection, "SHOW application_name"), "app " + number);
                    }
                    connection.setAutoCommit(false);
                    execute(connection, "SET work_mem = '1MB'; SET LOCAL lock_timeout = 7");
                    connection.rollback();
                    connection.setAutoCommit(true);
                    same(value(connection, "SHOW lock_timeout"), "0");
                }
            }
        });
    }

    static void startupOptions() throws Exception {
        together(number -> {
            String options = "-c work_mem=" + (number + 64) + "MB";
            String schema = "s" + number;
            try (Connection connection =
                    connect("options", options, "currentSchema", schema, "ApplicationName", "app " + number)) {
                for (int turn = 0; turn < 8; turn++) {
                    same(value(connection, "SHOW work_mem"), (number + 64) + "MB");
                    same(connection.getSchema(), null);
                    same(value(connection, "SHOW search_path"), schema);
                    same(value(connection, "SHOW application_name"), "app " + number);
                    // pgjdbc asks for it at each connect.
                    same(value(connection, "SHOW DateStyle"), "ISO, MDY");
                }
            }
        });
    }

    static void searchPathOfEach() throws Exception {
        try (Connection owner = connect()) {
            for (int number = 0; number < 4; number++) {
                String schema = "tenant" + number;
                execute(owner, "DROP SCHEMA IF EXISTS " + schema + " CASCADE; CREATE SCHEMA " + schema);
                execute(owner, "CREATE TABLE " + schema + ".place AS SELECT '" + schema + "'::text AS name");
            }
        }
        together(number -> {
            try (Connection connection = connect()) {
                for (int turn = 0; turn < 4; turn++) {
                    String schema = "tenant" + (number + turn) % 4;
                    connection.setSchema(schema);
                    for (int again = 0; again < 8; again++) {
                        same(value(connection, "SELECT name FROM place WHERE ? = 1", 1), schema);
                    }
                }
            }
        });
    }

    static void temporaryTables() throws Exception {
        try (Connection connection = connect(); Connection other = connect()) {
            execute(connection, "CREATE TEMP TABLE scratch (id int4)");
            for (int turn = 0; turn < 5; turn++) {
                execute(connection, "INSERT INTO scratch VALUES (1)");
                fails("42P01", () -> value(other, "SELECT * FROM scratch"));
            }
            same(value(connection, "SELECT count(*) FROM scratch"), 5L);
        }
    }

    static void listenAndNotify() throws Exception {
        try (Connection listener = connect(); Connection sender = connect()) {
            execute(listener, "LISTEN news");
            for (int turn = 0; turn < 3; turn++) {
                value(sender, "SELECT pg_notify('news', ?)::text", "" + turn);
                PGNotification[] heard = listener.unwrap(PGConnection.class).getNotifications(10_000);
                same(heard.length, 1);
                same(heard[0].getParameter(), "" + turn);
            }
            execute(listener, "UNLISTEN *");
        }
    }

    static void advisoryLocks() throws Exception {
        try (Connection holder = connect(); Connection other = connect()) {
            value(holder, "SELECT pg_advisory_lock(?)::text", 42L);
            for (int turn = 0; turn < 4; turn++) {
                same(value(other, "SELECT pg_try_advisory_lock(?)", 42L), false);
                same(value(holder, "SELECT 1"), 1);
            }
            same(value(holder, "SELECT pg_advisory_unlock(?)", 42L), true);
            same(value(other, "SELECT pg_try_advisory_lock(?)", 42L), true);
            same(value(other, "SELECT pg_advisory_unlock(?)", 42L), true);
        }
    }

    static void copyInAndOut() throws Exception {
        try (Connection owner = connect()) {
            execute(owner, "DROP TABLE IF EXISTS copied; CREATE TABLE copied (client int4, word text)");
        }
        together(number -> {
            try (Connection connection = connect()) {
                var copy = connection.unwrap(PGConnection.class).getCopyAPI();
                byte[] rows = (number + "\tword\n").repeat(200).getBytes(StandardCharsets.UTF_8);
                same(copy.copyIn("COPY copied FROM STDIN", new ByteArrayInputStream(rows)), 200L);
                byte[] broken = "no number\tword\n".getBytes(StandardCharsets.UTF_8);
                fails("22P02", () -> copy.copyIn("COPY copied FROM STDIN", new ByteArrayInputStream(broken)));
                copy.copyIn("COPY copied FROM STDIN").cancelCopy();
                var out = new ByteArrayOutputStream();
                same(copy.copyOut("COPY (SELECT * FROM copied WHERE client = " + number + ") TO STDOUT", out), 200L);
            }
        });
    }

    static void largeValues() throws Exception {
        String text = "0123456789abcdef".repeat(256 * 1024);
        together(number -> {
            try (Connection connection = connect()) {
                same(text.equals(value(connection, "SELECT ?::text", text)), true);
                byte[] bytes = (byte[]) value(connection, "SELECT ?::bytea", (Object) text.getBytes(StandardCharsets.UTF_8));
                same(bytes.length, text.length());
            }
        });
    }

    static void manyRows() throws Exception {
        together(number -> {
            try (Connection connection = connect(); Statement statement = connection.createStatement()) {
                int last = 0;
                try (ResultSet rows = statement.executeQuery("SELECT * FROM generate_series(1, " + (20000 + number) + ")")) {
                    while (rows.next()) {
                        last = rows.getInt(1);
                    }
                }
                same(last, 20000 + number);
            }
        });
    }

    /** pgjdbc's query timeout is a cancel request. */
    static void cancel() throws Exception {
        try (Connection connection = connect(); Statement statement = connection.createStatement()) {
            statement.setQueryTimeout(1);
            fails("57014", () -> statement.execute("SELECT pg_sleep(15)"));
            same(value(connection, "SELECT 1"), 1);
        }
    }

    static void killedInMidTransaction() throws Exception {
        try (Connection owner = connect()) {
            execute(owner, "DROP TABLE IF EXISTS killed; CREATE TABLE killed (client int4 PRIMARY KEY)");
            together(number -> {
                Connection connection = connect();
                connection.setAutoCommit(false);
                execute(connection, "INSERT INTO killed VALUES (0)");
                // Closes the socket, no more.
                connection.abort(Runnable::run);
                try (Connection survivor = connect()) {
                    same(value(survivor, "SELECT 1 + ?", number), number + 1);
                }
            });
            execute(owner, "INSERT INTO killed VALUES (0)");
        }
    }

    static void notices() throws Exception {
        try (Connection connection = connect(); Statement statement = connection.createStatement()) {
            for (int turn = 0; turn < 3; turn++) {
                try (Connection other = elsewhere()) {
                    statement.execute("DO $$ BEGIN RAISE WARNING 'turn " + turn + "'; END $$");
                }
                same(statement.getWarnings().getMessage(), "turn " + turn);
            }
        }
    }

    /** Long statements of pgjdbc's own. */
    static void metadata() throws Exception {
        together(number -> {
            try (Connection connection = connect()) {
                try (ResultSet tables = connection.getMetaData().getTables(null, "pg_catalog", "pg_class", null)) {
                    same(tables.next(), true);
                }
                same(connection.isValid(5), true);
                try (PreparedStatement statement = connection.prepareStatement("SELECT ?::int4 AS n, ?::text AS t")) {
                    same(statement.getParameterMetaData().getParameterTypeName(1), "int4");
                    same(statement.getMetaData().getColumnName(2), "t");
                }
            }
        });
    }
}

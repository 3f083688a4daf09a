<?php
// PHP's PDO and pgsql: statements pdo_stmt_..., deallocated by SQL; emulated ones; COPY, LISTEN, large objects. PHP has
// one thread, so its clients take turns, and each turn one of them has the server connection that was used last.

declare(strict_types=1);

const CLIENTS = 12;
const LIMIT = 20;
define('DIRECT', getenv('DRIVERS_WAY') === 'direct');

pcntl_async_signals(true);
pcntl_signal(SIGALRM, fn () => throw new RuntimeException('not done within ' . LIMIT . ' s'));

function main(array $checks, array $wanted): never
{
    $made = $failed = 0;
    foreach ($checks as $name => $check) {
        if ($wanted && !in_array($name, $wanted, true)) {
            continue;
        }
        $made++;
        pcntl_alarm(LIMIT);
        try {
            $check();
            echo "ok $name\n";
        } catch (Throwable $error) {
            $failed++;
            $line = implode(', ', array_column($error->getTrace(), 'line'));
            $why = preg_replace('/\s+/', ' ', $error->getMessage());
            echo "not ok $name - " . get_class($error) . ": $why (line {$error->getLine()}, $line)\n";
        }
        pcntl_alarm(0);
    }
    echo "1..$made\n";
    exit($failed ? 1 : 0);
}

/** @param array<int, mixed> $options */
function connect(array $options = [], string $more = ''): PDO
{
    $dsn = sprintf('pgsql:host=%s;port=%s;dbname=%s', getenv('PGHOST'), getenv('PGPORT'), getenv('PGDATABASE'));
    return new PDO("$dsn;sslmode=disable$more", getenv('PGUSER'), getenv('PGPASSWORD'), $options);
}

function same(mixed $found, mixed $expected): void
{
    if ($found !== $expected) {
        throw new UnexpectedValueException(substr(var_export($found, true) . ' is not ' . var_export($expected, true), 0, 300));
    }
}

function fails(string $state, callable $body): void
{
    try {
        $body();
    } catch (PDOException $error) {
        same($error->getCode(), $state);
        return;
    }
    throw new UnexpectedValueException("no error $state");
}

/** Runs the body while the server connection that was used last is busy, so that a pool has to use another one. */
function elsewhere(callable $body): mixed
{
    $other = connect();
    $other->beginTransaction();
    $other->query('SELECT 1');
    try {
        return $body();
    } finally {
        $other->rollBack();
    }
}

/** @param array<int, mixed> $arguments */
function value(PDO $client, string $sql, array $arguments = []): mixed
{
    $statement = $client->prepare($sql);
    $statement->execute($arguments);
    return $statement->fetchColumn();
}

/** @return array<int, PDO> */
function clients(): array
{
    return array_map(fn () => connect(), range(1, CLIENTS));
}

$checks = [
    // pdo_stmt_00000001 and so on, at every client; gone with DEALLOCATE when the object is.
    'named_statements' => function (): void {
        $clients = clients();
        $statements = [];
        foreach ($clients as $number => $client) {
            $statements[$number] = $client->prepare("SELECT $number * 1000 + ?::int4");
        }
        for ($turn = 0; $turn < 10; $turn++) {
            foreach ($statements as $number => $statement) {
                $ask = function () use ($statement, $turn): int {
                    $statement->execute([$turn]);
                    return $statement->fetchColumn();
                };
                same($turn % 2 ? elsewhere($ask) : $ask(), $number * 1000 + $turn);
                same(value($clients[$number], "SELECT '$number' || ?", [(string) $turn]), "$number$turn");
            }
        }
    },

    'without_names' => function (): void {
        foreach ([[PDO::PGSQL_ATTR_DISABLE_PREPARES => true], [PDO::ATTR_EMULATE_PREPARES => true]] as $options) {
            $client = connect($options);
            for ($turn = 0; $turn < 5; $turn++) {
                same(elsewhere(fn () => value($client, 'SELECT 1 + ?::int4', [$turn])), $turn + 1);
            }
        }
    },

    'stale_plan' => function (): void {
        [$client, $owner] = [connect(), connect()];
        $owner->exec('DROP TABLE IF EXISTS stale; CREATE TABLE stale AS SELECT 1 AS id');
        $statement = $client->prepare('SELECT * FROM stale');
        $ask = function () use ($statement): array {
            $statement->execute();
            return $statement->fetchAll(PDO::FETCH_NUM);
        };
        same($ask(), [[1]]);
        $owner->exec("ALTER TABLE stale ADD COLUMN word text DEFAULT 'new'");
        if (DIRECT) {
            fails('0A000', $ask);
        } else {
            same(count($ask()), 1);
            same(count(elsewhere($ask)), 1);
        }
        same($client->query('SELECT word FROM stale')->fetchColumn(), 'new');
    },

    'table_made_again' => function (): void {
        [$client, $owner] = [connect(), connect()];
        for ($content = 0, $statement = null; $content < 4; $content++) {
            $owner->exec("DROP TABLE IF EXISTS again; CREATE TABLE again AS SELECT $content AS id");
            $statement ??= $client->prepare('SELECT * FROM again');
            $statement->execute();
            same($statement->fetchColumn(), $content);
        }
    },

    'failed_statements' => function (): void {
        $client = connect();
        for ($turn = 0; $turn < 5; $turn++) {
            fails('42601', fn () => value($client, 'SELECT FROM WHERE ?', [1]));
            fails('22012', fn () => value($client, 'SELECT 1 / ?::int4', [0]));
            same(elsewhere(fn () => value($client, 'SELECT 12 / ?::int4', [4])), 3);
        }
    },

    'deallocate' => function (): void {
        $client = connect();
        foreach (['DEALLOCATE ALL', 'DISCARD ALL'] as $word) {
            $statement = $client->prepare('SELECT ?::int4');
            $statement->execute([1]);
            $client->exec($word);
            fails('26000', fn () => $statement->execute([2]));
            elsewhere(fn () => fails('26000', fn () => $statement->execute([2])));
            same(value($client, 'SELECT ?::int4', [3]), 3);
        }
    },

    'savepoints' => function (): void {
        foreach (clients() as $number => $client) {
            $client->beginTransaction();
            $client->exec('SAVEPOINT before');
            fails('22012', fn () => value($client, 'SELECT 1 / ?::int4', [0]));
            fails('25P02', fn () => value($client, 'SELECT ?::int4', [1]));
            $client->exec('ROLLBACK TO SAVEPOINT before');
            same(value($client, 'SELECT ?::int4', [$number]), $number);
            $client->commit();
        }
    },

    'settings_are_kept' => function (): void {
        $clients = clients();
        foreach ($clients as $number => $client) {
            if ($number % 3 === 0) {
                $client->exec("SET work_mem = '" . ($number + 64) . "MB'; SET search_path = s$number");
                $client->exec("BEGIN; SET ROLE visitor; SET LOCAL lock_timeout = 7; COMMIT");
            }
        }
        for ($turn = 0; $turn < 4; $turn++) {
            foreach ($clients as $number => $client) {
                $mine = $number % 3 === 0;
                $client->beginTransaction();
                $client->exec("SET work_mem = '1MB'");
                $client->rollBack();
                same(value($client, 'SHOW work_mem'), $mine ? $number + 64 . 'MB' : '4MB');
                same(value($client, 'SHOW search_path'), $mine ? "s$number" : '"$user", public');
                same(value($client, 'SELECT current_user'), $mine ? 'visitor' : 'app');
                same(value($client, 'SHOW lock_timeout'), '0');
            }
        }
    },

    'startup_options' => function (): void {
        $clients = array_map(
            fn (int $number) => connect([], ";application_name=app$number;options=-cwork_mem=" . ($number + 64) . 'MB'),
            range(0, CLIENTS - 1),
        );
        for ($turn = 0; $turn < 3; $turn++) {
            foreach ($clients as $number => $client) {
                same(value($client, 'SHOW work_mem'), $number + 64 . 'MB');
                same(value($client, 'SHOW application_name'), "app$number");
            }
        }
    },

    // PHP keeps the connection for the next request, with what the last one has set.
    'persistent_connection' => function (): void {
        connect([PDO::ATTR_PERSISTENT => true])->exec("SET work_mem = '77MB'");
        $again = connect([PDO::ATTR_PERSISTENT => true]);
        same(elsewhere(fn () => value($again, 'SHOW work_mem')), '77MB');
        same(value(connect(), 'SHOW work_mem'), '4MB');
    },

    'temporary_tables' => function (): void {
        [$client, $other] = [connect(), connect()];
        $client->exec('CREATE TEMP TABLE scratch (id int4)');
        for ($turn = 0; $turn < 5; $turn++) {
            value($client, 'INSERT INTO scratch VALUES (?) RETURNING id', [$turn]);
            fails('42P01', fn () => value($other, 'SELECT * FROM scratch'));
        }
        same(value($client, 'SELECT count(*) FROM scratch'), 5);
    },

    'listen_and_notify' => function (): void {
        [$listener, $sender] = [connect(), connect()];
        $listener->exec('LISTEN news');
        for ($turn = 0; $turn < 3; $turn++) {
            value($sender, "SELECT pg_notify('news', ?)", [(string) $turn]);
            $note = $listener->pgsqlGetNotify(PDO::FETCH_ASSOC, 10_000);
            same([$note['message'], $note['payload']], ['news', (string) $turn]);
        }
    },

    'advisory_locks' => function (): void {
        [$holder, $other] = [connect(), connect()];
        value($holder, 'SELECT pg_advisory_lock(?::int8)', [42]);
        for ($turn = 0; $turn < 4; $turn++) {
            same(value($other, 'SELECT pg_try_advisory_lock(?::int8)', [42]), false);
            same(value($holder, 'SELECT 1'), 1);
        }
        same(value($holder, 'SELECT pg_advisory_unlock(?::int8)', [42]), true);
        same(value($other, 'SELECT pg_try_advisory_lock(?::int8)', [42]), true);
    },

    'cursors' => function (): void {
        $client = connect();
        $client->beginTransaction();
        $cursor = $client->prepare('SELECT * FROM generate_series(1, ?::int4)', [PDO::ATTR_CURSOR => PDO::CURSOR_SCROLL]);
        $cursor->execute([20]);
        same($cursor->fetch(PDO::FETCH_COLUMN, PDO::FETCH_ORI_ABS, 7), 7);
        $client->commit();
        $client->exec('DECLARE held CURSOR WITH HOLD FOR SELECT * FROM generate_series(1, 30)');
        same(elsewhere(fn () => count($client->query('FETCH 10 FROM held')->fetchAll())), 10);
        $client->exec('CLOSE held');
    },

    'copy_in_and_out' => function (): void {
        connect()->exec('DROP TABLE IF EXISTS copied; CREATE TABLE copied (client int4, word text)');
        foreach (clients() as $number => $client) {
            same($client->pgsqlCopyFromArray('copied', array_fill(0, 100, "$number\tword")), true);
            fails('22P02', fn () => $client->pgsqlCopyFromArray('copied', ["no number\tword"]));
            same(count($client->pgsqlCopyToArray('copied')), 100 * ($number + 1));
        }
    },

    'large_objects' => function (): void {
        $client = connect();
        $client->beginTransaction();
        $id = $client->pgsqlLOBCreate();
        fwrite($client->pgsqlLOBOpen($id, 'w'), str_repeat('0123456789abcdef', 4096));
        $client->commit();
        $client->beginTransaction();
        same(strlen(stream_get_contents($client->pgsqlLOBOpen($id))), 65536);
        $client->pgsqlLOBUnlink($id);
        $client->commit();
    },

    'large_values' => function (): void {
        $text = str_repeat('0123456789abcdef', 256 * 1024);
        $client = connect();
        same(value($client, 'SELECT ?::text', [$text]) === $text, true);
    },

    'killed_in_mid_transaction' => function (): void {
        connect()->exec('DROP TABLE IF EXISTS killed; CREATE TABLE killed (client int4 PRIMARY KEY)');
        for ($number = 0; $number < 4; $number++) {
            $child = pcntl_fork();
            if ($child === 0) {
                pcntl_alarm(0);
                connect()->exec('BEGIN; INSERT INTO killed VALUES (0)');
                posix_kill(posix_getpid(), SIGKILL);
            }
            pcntl_waitpid($child, $status);
            same(value(connect(), 'SELECT ?::int4', [$number]), $number);
        }
        same(connect()->exec('INSERT INTO killed VALUES (0)'), 1);
    },

    // The older extension: libpq itself.
    'pgsql_extension' => function (): void {
        $client = pg_connect('options=--work_mem=77MB');
        same(pg_fetch_result(pg_query_params($client, 'SELECT $1::int4 + 1', [1]), 0, 0), '2');
        pg_prepare($client, 'mine', 'SELECT $1::int4 + 2');
        same(elsewhere(fn () => pg_fetch_result(pg_execute($client, 'mine', [1]), 0, 0)), '3');
        same(pg_fetch_result(pg_query($client, 'SHOW work_mem'), 0, 0), '77MB');
        same(pg_ping($client), true);
        pg_query($client, "DO $$ BEGIN RAISE WARNING 'heard'; END $$");
        same(pg_last_notice($client), 'WARNING:  heard');
        pg_close($client);
    },
];

main($checks, array_slice($argv, 1));

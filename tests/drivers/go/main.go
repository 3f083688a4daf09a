// Scenario for Go's pgx 4: statements lrupsc_1_0 and so on that it prepares and describes once, batches, COPY, its pool.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime/debug"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgconn"
	"github.com/jackc/pgx/v4"
	"github.com/jackc/pgx/v4/pgxpool"
)

const (
	clients = 12
	limit   = 20 * time.Second
)

type check struct {
	name string
	body func(context.Context)
}

var checks = []check{
	{"named_statements", namedStatements},
	{"described_statements", describedStatements},
	{"simple_protocol", simpleProtocol},
	{"batches", batches},
	{"stale_plan", stalePlan},
	{"table_made_again", tableMadeAgain},
	{"failed_statements", failedStatements},
	{"deallocate", deallocate},
	{"savepoints", savepoints},
	{"settings_are_kept", settingsAreKept},
	{"startup_options", startupOptions},
	{"temporary_tables", temporaryTables},
	{"listen_and_notify", listenAndNotify},
	{"advisory_locks", advisoryLocks},
	{"copy_in_and_out", copyInAndOut},
	{"large_values", largeValues},
	{"cancel", cancelled},
	{"killed_in_mid_transaction", killedInMidTransaction},
	{"notices", notices},
	{"pool", pool},
}

func main() {
	made, failed := 0, 0
	for _, each := range checks {
		if len(os.Args) > 1 && !strings.Contains(" "+strings.Join(os.Args[1:], " ")+" ", " "+each.name+" ") {
			continue
		}
		made++
		if why := outcome(each.body); why != "" {
			failed++
			fmt.Printf("not ok %s - %s\n", each.name, why)
		} else {
			fmt.Printf("ok %s\n", each.name)
		}
	}
	fmt.Printf("1..%d\n", made)
	if failed > 0 {
		os.Exit(1)
	}
}

// Checks panic with an error.
func outcome(body func(context.Context)) (why string) {
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	return caught(func() { body(ctx) })
}

func caught(body func()) (why string) {
	defer func() {
		if problem := recover(); problem != nil {
			var lines []string
			for _, line := range strings.Split(string(debug.Stack()), "\n") {
				if at := strings.Index(line, "/main.go:"); at >= 0 {
					lines = append(lines, strings.Fields(line[at+9:])[0])
				}
			}
			text := strings.Join(strings.Fields(fmt.Sprint(problem)), " ")
			why = fmt.Sprintf("%s (line %s)", text, strings.Join(lines, ", "))
		}
	}()
	body()
	return ""
}

func must(err error) {
	if err != nil {
		panic(err)
	}
}

func same(found, expected interface{}) {
	if found != expected {
		panic(fmt.Sprintf("%v is not %v", found, expected))
	}
}

func fails(err error, state string) {
	var refused *pgconn.PgError
	if !errors.As(err, &refused) || refused.Code != state {
		panic(fmt.Sprintf("not %s: %v", state, err))
	}
}

// Everything else is in the environment.
func config(change ...func(*pgx.ConnConfig)) *pgx.ConnConfig {
	config, err := pgx.ParseConfig("")
	must(err)
	for _, each := range change {
		each(config)
	}
	return config
}

func connect(ctx context.Context, change ...func(*pgx.ConnConfig)) *pgx.Conn {
	conn, err := pgx.ConnectConfig(ctx, config(change...))
	must(err)
	return conn
}

func connected(ctx context.Context, body func(*pgx.Conn), change ...func(*pgx.ConnConfig)) {
	conn := connect(ctx, change...)
	defer func() { _ = conn.Close(ctx) }()
	body(conn)
}

// Keeps the server connection that was used last busy, so that a pool has to use another one.
func elsewhere(ctx context.Context, body func()) {
	connected(ctx, func(other *pgx.Conn) {
		execute(ctx, other, "BEGIN; SELECT 1")
		body()
		execute(ctx, other, "ROLLBACK")
	})
}

// By a simple query.
func execute(ctx context.Context, conn *pgx.Conn, sql string) {
	_, err := conn.PgConn().Exec(ctx, sql).ReadAll()
	must(err)
}

func text(ctx context.Context, conn *pgx.Conn, sql string, arguments ...interface{}) (found string) {
	must(conn.QueryRow(ctx, sql, arguments...).Scan(&found))
	return found
}

func number(ctx context.Context, conn *pgx.Conn, sql string, arguments ...interface{}) (found int) {
	must(conn.QueryRow(ctx, sql, arguments...).Scan(&found))
	return found
}

func together(ctx context.Context, client func(int, *pgx.Conn), change ...func(*pgx.ConnConfig)) {
	var group sync.WaitGroup
	whys := make([]string, clients)
	for i := 0; i < clients; i++ {
		group.Add(1)
		go func(i int) {
			defer group.Done()
			whys[i] = caught(func() {
				connected(ctx, func(conn *pgx.Conn) { client(i, conn) }, change...)
			})
		}(i)
	}
	group.Wait()
	for _, why := range whys {
		if why != "" {
			panic(why)
		}
	}
}

func namedStatements(ctx context.Context) {
	together(ctx, func(i int, conn *pgx.Conn) {
		for turn := 0; turn < 25; turn++ {
			same(number(ctx, conn, fmt.Sprintf("SELECT %d * 1000 + $1::int4", i), turn), i*1000+turn)
			must(conn.BeginFunc(ctx, func(tx pgx.Tx) error {
				same(text(ctx, conn, fmt.Sprintf("SELECT '%d ' || $1::text", i), fmt.Sprint(turn)), fmt.Sprintf("%d %d", i, turn))
				return nil
			}))
		}
	})
}

// Described once by the unnamed statement, and parsed again each time.
func describedStatements(ctx context.Context) {
	together(ctx, func(i int, conn *pgx.Conn) {
		for turn := 0; turn < 25; turn++ {
			same(number(ctx, conn, fmt.Sprintf("SELECT %d + $1::int4", i), turn), i+turn)
		}
	}, func(config *pgx.ConnConfig) { config.BuildStatementCache = nil })
}

func simpleProtocol(ctx context.Context) {
	together(ctx, func(i int, conn *pgx.Conn) {
		for turn := 0; turn < 25; turn++ {
			same(number(ctx, conn, "SELECT $1::int4 + $2::int4", i, turn), i+turn)
		}
	}, func(config *pgx.ConnConfig) { config.PreferSimpleProtocol = true })
}

func batches(ctx context.Context) {
	together(ctx, func(i int, conn *pgx.Conn) {
		for turn := 0; turn < 10; turn++ {
			batch := &pgx.Batch{}
			for j := 0; j < 20; j++ {
				batch.Queue("SELECT $1::int4 + $2::int4", i, j)
			}
			batch.Queue("SELECT 1 / $1::int4", 0)
			batch.Queue("SELECT 'skipped'")
			results := conn.SendBatch(ctx, batch)
			for j := 0; j < 20; j++ {
				var sum int
				must(results.QueryRow().Scan(&sum))
				same(sum, i+j)
			}
			_, err := results.Exec()
			fails(err, "22012")
			_ = results.Close()
			same(text(ctx, conn, "SELECT 'skipped'"), "skipped")
		}
	})
}

// An int4 that became a float4 is as long in binary: rows must not come unannounced.
func stalePlan(ctx context.Context) {
	connected(ctx, func(conn *pgx.Conn) {
		connected(ctx, func(owner *pgx.Conn) {
			execute(ctx, owner, "DROP TABLE IF EXISTS stale; CREATE TABLE stale AS SELECT 1 AS id")
			same(number(ctx, conn, "SELECT * FROM stale"), 1)
			execute(ctx, owner, "ALTER TABLE stale ALTER COLUMN id TYPE float4 USING id + 0.5")
			var found float32
			if err := conn.QueryRow(ctx, "SELECT * FROM stale").Scan(&found); err != nil {
				fails(err, "0A000")
			} else {
				same(found, float32(1.5))
			}
			// pgx has seen the error and prepares again.
			elsewhere(ctx, func() {
				must(conn.QueryRow(ctx, "SELECT * FROM stale").Scan(&found))
				same(found, float32(1.5))
			})
		})
	})
}

func tableMadeAgain(ctx context.Context) {
	connected(ctx, func(conn *pgx.Conn) {
		connected(ctx, func(owner *pgx.Conn) {
			for content := 0; content < 4; content++ {
				execute(ctx, owner, fmt.Sprintf("DROP TABLE IF EXISTS again; CREATE TABLE again AS SELECT %d AS id", content))
				same(number(ctx, conn, "SELECT id FROM again WHERE $1::int4 = 1", 1), content)
			}
		})
	})
}

func failedStatements(ctx context.Context) {
	together(ctx, func(i int, conn *pgx.Conn) {
		for turn := 0; turn < 10; turn++ {
			_, err := conn.Prepare(ctx, "mine", "SELECT FROM WHERE")
			fails(err, "42601")
			_, err = conn.Prepare(ctx, "mine", fmt.Sprintf("SELECT %d + $1::int4", i))
			must(err)
			same(number(ctx, conn, "mine", turn), i+turn)
			must(conn.Deallocate(ctx, "mine"))
		}
	})
}

func deallocate(ctx context.Context) {
	for _, word := range []string{"DEALLOCATE ALL", "DISCARD ALL"} {
		connected(ctx, func(conn *pgx.Conn) {
			_, err := conn.Prepare(ctx, "mine", "SELECT 1")
			must(err)
			execute(ctx, conn, word)
			_, err = conn.Exec(ctx, "mine")
			fails(err, "26000")
			elsewhere(ctx, func() {
				_, err = conn.Exec(ctx, "mine")
				fails(err, "26000")
			})
		})
	}
}

func savepoints(ctx context.Context) {
	together(ctx, func(i int, conn *pgx.Conn) {
		for turn := 0; turn < 5; turn++ {
			must(conn.BeginTxFunc(ctx, pgx.TxOptions{IsoLevel: pgx.Serializable}, func(tx pgx.Tx) error {
				fails(tx.BeginFunc(ctx, func(inner pgx.Tx) error {
					_, err := inner.Exec(ctx, "SELECT 1 / $1::int4", 0)
					return err
				}), "22012")
				same(number(ctx, conn, "SELECT $1::int4", i), i)
				return nil
			}))
		}
	})
}

func settingsAreKept(ctx context.Context) {
	together(ctx, func(i int, conn *pgx.Conn) {
		memory, role := "4MB", "app"
		if i%3 == 0 {
			memory, role = fmt.Sprintf("%dMB", i+64), "visitor"
			execute(ctx, conn, "SET work_mem = '"+memory+"'; SET ROLE visitor")
		}
		for turn := 0; turn < 8; turn++ {
			same(text(ctx, conn, "SHOW work_mem"), memory)
			same(text(ctx, conn, "SELECT current_user::text"), role)
			execute(ctx, conn, "BEGIN; SET work_mem = '1MB'; SET LOCAL lock_timeout = 7; ROLLBACK")
			same(text(ctx, conn, "SHOW lock_timeout"), "0")
		}
	})
}

func startupOptions(ctx context.Context) {
	together(ctx, func(i int, conn *pgx.Conn) {
		for turn := 0; turn < 8; turn++ {
			same(text(ctx, conn, "SHOW work_mem"), "77MB")
			same(text(ctx, conn, "SHOW search_path"), "shop, public")
		}
	}, func(config *pgx.ConnConfig) {
		config.RuntimeParams["work_mem"] = "77MB"
		config.RuntimeParams["search_path"] = "shop, public"
	})
}

func temporaryTables(ctx context.Context) {
	connected(ctx, func(conn *pgx.Conn) {
		connected(ctx, func(other *pgx.Conn) {
			execute(ctx, conn, "CREATE TEMP TABLE scratch (id int4)")
			for turn := 0; turn < 5; turn++ {
				_, err := conn.Exec(ctx, "INSERT INTO scratch VALUES ($1)", turn)
				must(err)
				_, err = other.Exec(ctx, "SELECT * FROM scratch")
				fails(err, "42P01")
			}
			same(number(ctx, conn, "SELECT count(*) FROM scratch"), 5)
		})
	})
}

func listenAndNotify(ctx context.Context) {
	connected(ctx, func(listener *pgx.Conn) {
		connected(ctx, func(sender *pgx.Conn) {
			execute(ctx, listener, "LISTEN news")
			for turn := 0; turn < 3; turn++ {
				_, err := sender.Exec(ctx, "SELECT pg_notify('news', $1)", fmt.Sprint(turn))
				must(err)
				note, err := listener.WaitForNotification(ctx)
				must(err)
				same(note.Payload, fmt.Sprint(turn))
			}
		})
	})
}

func advisoryLocks(ctx context.Context) {
	try := "SELECT pg_try_advisory_lock($1)::text"
	connected(ctx, func(holder *pgx.Conn) {
		connected(ctx, func(other *pgx.Conn) {
			text(ctx, holder, "SELECT pg_advisory_lock($1)::text", 42)
			for turn := 0; turn < 4; turn++ {
				same(text(ctx, other, try, 42), "false")
				same(number(ctx, holder, "SELECT 1"), 1)
			}
			same(text(ctx, holder, "SELECT pg_advisory_unlock($1)::text", 42), "true")
			same(text(ctx, other, try, 42), "true")
		})
	})
}

func copyInAndOut(ctx context.Context) {
	connected(ctx, func(owner *pgx.Conn) {
		execute(ctx, owner, "DROP TABLE IF EXISTS copied; CREATE TABLE copied (client int4, word text)")
	})
	together(ctx, func(i int, conn *pgx.Conn) {
		rows := make([][]interface{}, 200)
		for turn := range rows {
			rows[turn] = []interface{}{i, fmt.Sprint(turn)}
		}
		count, err := conn.CopyFrom(ctx, pgx.Identifier{"copied"}, []string{"client", "word"}, pgx.CopyFromRows(rows))
		must(err)
		same(count, int64(200))
		_, err = conn.PgConn().CopyFrom(ctx, strings.NewReader("no number\tword\n"), "COPY copied FROM STDIN")
		fails(err, "22P02")
		var out strings.Builder
		sql := fmt.Sprintf("COPY (SELECT 1 FROM copied WHERE client = %d) TO STDOUT", i)
		_, err = conn.PgConn().CopyTo(ctx, &out, sql)
		must(err)
		same(out.Len(), 400)
	})
}

func largeValues(ctx context.Context) {
	large := strings.Repeat("0123456789abcdef", 128*1024)
	together(ctx, func(_ int, conn *pgx.Conn) {
		same(text(ctx, conn, "SELECT $1::text", large) == large, true)
	})
}

// By a cancel request, the socket stays open; pgx itself closes it when its context ends.
func cancelled(ctx context.Context) {
	connected(ctx, func(conn *pgx.Conn) {
		connected(ctx, func(other *pgx.Conn) {
			stopped := make(chan error)
			go func() {
				_, err := conn.PgConn().Exec(ctx, "/* pgx */ SELECT pg_sleep(15)").ReadAll()
				stopped <- err
			}()
			running := "SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND query LIKE '/* pgx */%'"
			for number(ctx, other, running) == 0 {
				time.Sleep(10 * time.Millisecond)
			}
			must(conn.PgConn().CancelRequest(ctx))
			fails(<-stopped, "57014")
			same(number(ctx, conn, "SELECT 1"), 1)
		})
	})
}

func killedInMidTransaction(ctx context.Context) {
	connected(ctx, func(owner *pgx.Conn) {
		execute(ctx, owner, "DROP TABLE IF EXISTS killed; CREATE TABLE killed (client int4 PRIMARY KEY)")
		together(ctx, func(i int, conn *pgx.Conn) {
			execute(ctx, conn, "BEGIN; INSERT INTO killed VALUES (0)")
			must(conn.PgConn().Conn().Close())
			connected(ctx, func(survivor *pgx.Conn) { same(number(ctx, survivor, "SELECT $1::int4", i), i) })
		})
		execute(ctx, owner, "INSERT INTO killed VALUES (0)")
	})
}

func notices(ctx context.Context) {
	var heard []string
	connected(ctx, func(conn *pgx.Conn) {
		for turn := 0; turn < 3; turn++ {
			elsewhere(ctx, func() {
				execute(ctx, conn, fmt.Sprintf("DO $$ BEGIN RAISE WARNING 'turn %d'; END $$", turn))
			})
		}
	}, func(config *pgx.ConnConfig) {
		config.OnNotice = func(_ *pgconn.PgConn, notice *pgconn.Notice) { heard = append(heard, notice.Message) }
	})
	same(strings.Join(heard, ", "), "turn 0, turn 1, turn 2")
}

func pool(ctx context.Context) {
	config, err := pgxpool.ParseConfig("pool_max_conns=8")
	must(err)
	pool, err := pgxpool.ConnectConfig(ctx, config)
	must(err)
	defer pool.Close()
	together(ctx, func(i int, _ *pgx.Conn) {
		for turn := 0; turn < 20; turn++ {
			var sum int
			must(pool.QueryRow(ctx, fmt.Sprintf("SELECT %d + $1::int4", turn), i).Scan(&sum))
			same(sum, turn+i)
		}
	})
}

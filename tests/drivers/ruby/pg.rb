# frozen_string_literal: true

# Ruby's pg, libpq from threads: named and unnamed statements, pipeline mode, single rows, COPY, LISTEN, cancel.

require 'pg'
require 'socket'
require 'timeout'

CLIENTS = 12
LIMIT = 20
DIRECT = ENV.fetch('DRIVERS_WAY') == 'direct'
CHECKS = {}

def check(name, &body)
  CHECKS[name.to_s] = body
end

def outcome(body)
  Timeout.timeout(LIMIT) { body.call }
  nil
rescue Exception => e # rubocop:disable Lint/RescueException
  lines = (e.backtrace || []).grep(/pg\.rb:(\d+)/) { Regexp.last_match(1) }
  "#{e.class}: #{e.message.split.join(' ')[0, 300]} (line #{lines.first(4).join(', ')})"
end

def main
  wanted = CHECKS.select { |name, _| ARGV.empty? || ARGV.include?(name) }
  whys = wanted.map do |name, body|
    why = outcome(body)
    puts(why ? "not ok #{name} - #{why}" : "ok #{name}")
    why
  end
  puts "1..#{whys.size}"
  $stdout.flush
  exit!(whys.none?)
end

def same(found, expected)
  raise "#{found.inspect[0, 150]} is not #{expected.inspect[0, 150]}" unless found == expected
end

def fails(kind)
  yield
rescue kind
  nil
else
  raise "no #{kind}"
end

def connected(**options)
  conn = PG.connect(**options)
  yield conn
ensure
  conn&.close unless conn&.finished?
end

# Runs the block while the server connection that was used last is busy, so that a pool has to use another one.
def elsewhere
  connected { |other| other.transaction { other.exec('SELECT 1') && yield } }
end

# A thread for each client.
def together
  threads = Array.new(CLIENTS) do |number|
    Thread.new { connected { |conn| yield number, conn } }.tap { |thread| thread.report_on_exception = false }
  end
  threads.each(&:join)
end

def value(conn, sql, *arguments)
  conn.exec_params(sql, arguments).getvalue(0, 0)
end

def fresh_table(conn, name, columns)
  conn.exec("SET client_min_messages = warning; DROP TABLE IF EXISTS #{name}; RESET client_min_messages")
  conn.exec("CREATE TABLE #{name} (#{columns})")
end

check :named_statements do
  together do |number, conn|
    conn.prepare('mine', "SELECT #{number} * 1000 + $1::int4")
    conn.prepare('yours', "SELECT '#{number} ' || $1")
    25.times do |turn|
      same(conn.exec_prepared('mine', [turn]).getvalue(0, 0), (number * 1000 + turn).to_s)
      conn.transaction { same(conn.exec_prepared('yours', [turn]).getvalue(0, 0), "#{number} #{turn}") }
    end
    same(conn.describe_prepared('mine').paramtype(0), 23)
  end
end

check :unnamed_statement do
  together do |number, conn|
    20.times do |turn|
      conn.prepare('', "SELECT #{number} + $1::int4")
      same(conn.describe_prepared('').nfields, 1)
      same(conn.exec_prepared('', [turn]).getvalue(0, 0), (number + turn).to_s)
      same(conn.exec_prepared('', [turn + 1]).getvalue(0, 0), (number + turn + 1).to_s)
    end
  end
end

check :stale_plan do
  connected do |conn|
    connected do |owner|
      fresh_table(owner, 'stale', 'id int4')
      owner.exec('INSERT INTO stale VALUES (1)')
      conn.prepare('stale', 'SELECT * FROM stale')
      same(conn.exec_prepared('stale').values, [%w[1]])
      owner.exec("ALTER TABLE stale ADD COLUMN word text DEFAULT 'new'")
      if DIRECT
        fails(PG::FeatureNotSupported) { conn.exec_prepared('stale') }
      else
        same(conn.exec_prepared('stale').values, [%w[1 new]])
        elsewhere { same(conn.exec_prepared('stale').values, [%w[1 new]]) }
      end
      conn.exec('DEALLOCATE stale')
      conn.prepare('stale', 'SELECT * FROM stale')
      same(conn.exec_prepared('stale').values, [%w[1 new]])
    end
  end
end

check :failed_parse do
  connected do |conn|
    fails(PG::UndefinedTable) { conn.prepare('mine', 'SELECT nothing FROM nowhere') }
    fails(PG::InvalidSqlStatementName) { conn.exec_prepared('mine') }
    conn.prepare('mine', 'SELECT 7')
    fails(PG::DuplicatePstatement) { conn.prepare('mine', 'SELECT 8') }
    elsewhere do
      same(conn.exec_prepared('mine').getvalue(0, 0), '7')
      fails(PG::DuplicatePstatement) { conn.prepare('mine', 'SELECT 8') }
    end
  end
end

check :deallocate do
  connected do |conn|
    ['DEALLOCATE mine', 'DEALLOCATE ALL', 'DISCARD ALL'].each do |word|
      conn.prepare('mine', 'SELECT 1')
      conn.exec(word)
      fails(PG::InvalidSqlStatementName) { conn.exec_prepared('mine') }
      elsewhere { fails(PG::InvalidSqlStatementName) { conn.describe_prepared('mine') } }
    end
  end
end

check :prepare_in_sql do
  connected do |conn|
    conn.exec('PREPARE doubled (int4) AS SELECT $1 * 2')
    3.times { |turn| elsewhere { same(conn.exec("EXECUTE doubled (#{turn})").getvalue(0, 0), (turn * 2).to_s) } }
    # What SQL has prepared the protocol can execute.
    same(conn.exec_prepared('doubled', [21]).getvalue(0, 0), '42')
    connected { |other| fails(PG::InvalidSqlStatementName) { other.exec('EXECUTE doubled (1)') } }
  end
end

check :pipeline do
  together do |number, conn|
    5.times do |turn|
      conn.enter_pipeline_mode
      conn.send_prepare("p#{turn}", "SELECT #{number} + $1::int4")
      10.times { |i| conn.send_query_prepared("p#{turn}", [i]) }
      conn.send_query_params('SELECT 1 / $1::int4', [0])
      conn.send_prepare("skipped#{turn}", 'SELECT 1')
      conn.pipeline_sync
      conn.send_query_prepared("p#{turn}", [99])
      conn.pipeline_sync
      statuses = []
      until statuses.count(PG::PGRES_PIPELINE_SYNC) == 2
        result = conn.get_result
        statuses << result.result_status if result
      end
      expected = [PG::PGRES_COMMAND_OK, *([PG::PGRES_TUPLES_OK] * 10), PG::PGRES_FATAL_ERROR,
                  PG::PGRES_PIPELINE_ABORTED, PG::PGRES_PIPELINE_SYNC, PG::PGRES_TUPLES_OK, PG::PGRES_PIPELINE_SYNC]
      same(statuses, expected)
      conn.exit_pipeline_mode
      fails(PG::InvalidSqlStatementName) { conn.exec_prepared("skipped#{turn}") }
    end
  end
end

check :savepoints do
  together do |number, conn|
    conn.prepare('divided', 'SELECT 12 / $1::int4')
    5.times do
      conn.transaction do
        conn.exec('SAVEPOINT before')
        fails(PG::DivisionByZero) { conn.exec_prepared('divided', [0]) }
        fails(PG::InFailedSqlTransaction) { conn.exec_prepared('divided', [1]) }
        conn.exec('ROLLBACK TO before')
        same(value(conn, 'SELECT $1::int4', number), number.to_s)
      end
    end
  end
end

check :settings_are_kept do
  together do |number, conn|
    mine = (number % 3).zero?
    if mine
      conn.exec("SET work_mem = '#{number + 64}MB'; SET ROLE visitor; SET bytea_output = escape")
      conn.exec("SET DateStyle = 'SQL, DMY'; SET myapp.word = 'it''s \\ µ€'")
    end
    8.times do
      same(value(conn, 'SHOW work_mem'), mine ? "#{number + 64}MB" : '4MB')
      same(value(conn, 'SELECT current_user'), mine ? 'visitor' : 'app')
      same(value(conn, "SELECT '\\x00ff'::bytea"), mine ? '\\000\\377' : '\\x00ff')
      same(value(conn, "SELECT date '2026-01-31'"), mine ? '31/01/2026' : '2026-01-31')
      same(value(conn, "SELECT current_setting('myapp.word', true)") || '', mine ? "it's \\ µ€" : '')
      conn.exec("BEGIN; SET work_mem = '1MB'; SET LOCAL lock_timeout = 7; ROLLBACK")
      same(value(conn, 'SHOW lock_timeout'), '0')
    end
  end
end

check :client_encoding do
  together do |number, conn|
    conn.set_client_encoding('LATIN1') if number.odd?
    8.times do
      bytes = value(conn, 'SELECT chr(233)').bytes
      same(bytes, number.odd? ? [233] : [195, 169])
    end
  end
end

check :startup_options do
  together do |number, _|
    connected(options: "-c work_mem=#{number + 64}MB", application_name: "app #{number}") do |conn|
      8.times do
        same(value(conn, 'SHOW work_mem'), "#{number + 64}MB")
        same(value(conn, 'SHOW application_name'), "app #{number}")
      end
      conn.exec("SET work_mem = '1MB'")
      # PQreset connects again.
      conn.reset
      same(value(conn, 'SHOW work_mem'), "#{number + 64}MB")
    end
  end
end

check :temporary_tables do
  connected do |conn|
    connected do |other|
      conn.exec('CREATE TEMP TABLE scratch (id int4)')
      5.times do |turn|
        conn.exec_params('INSERT INTO scratch VALUES ($1)', [turn])
        fails(PG::UndefinedTable) { other.exec('SELECT * FROM scratch') }
      end
      same(value(conn, 'SELECT count(*) FROM scratch'), '5')
    end
  end
end

check :listen_and_notify do
  connected do |listener|
    connected do |sender|
      listener.exec('LISTEN news')
      3.times do |turn|
        sender.exec_params("SELECT pg_notify('news', $1)", [turn])
        heard = nil
        listener.wait_for_notify(10) { |*note| heard = note }
        same(heard.values_at(0, 2), ['news', turn.to_s])
      end
      listener.exec('UNLISTEN *')
    end
  end
end

check :advisory_locks do
  connected do |holder|
    connected do |other|
      value(holder, 'SELECT pg_advisory_lock($1)', 42)
      4.times do
        same(value(other, 'SELECT pg_try_advisory_lock($1)', 42), 'f')
        same(value(holder, 'SELECT 1'), '1')
      end
      same(value(holder, 'SELECT pg_advisory_unlock($1)', 42), 't')
      same(value(other, 'SELECT pg_try_advisory_lock($1)', 42), 't')
    end
  end
end

check :cursor_with_hold do
  connected do |conn|
    conn.exec('DECLARE held CURSOR WITH HOLD FOR SELECT * FROM generate_series(1, 30)')
    3.times { elsewhere { same(conn.exec('FETCH 10 FROM held').ntuples, 10) } }
    conn.exec('CLOSE ALL')
    fails(PG::InvalidCursorName) { conn.exec('FETCH 10 FROM held') }
  end
end

check :rows_one_by_one do
  together do |number, conn|
    conn.send_query_params('SELECT i + $1 FROM generate_series(1, 500) i', [number])
    conn.set_single_row_mode
    sum = 0
    conn.get_result.stream_each_row { |row| sum += row[0].to_i }
    conn.discard_results
    same(sum, 125_250 + 500 * number)
  end
end

check :copy_in_and_out do
  connected { |owner| fresh_table(owner, 'copied', 'client int4, word text') }
  together do |number, conn|
    conn.copy_data('COPY copied FROM STDIN') { 100.times { |i| conn.put_copy_data("#{number}\tword #{i}\n") } }
    fails(PG::InvalidTextRepresentation) do
      conn.copy_data('COPY copied FROM STDIN') { conn.put_copy_data("no number\tword\n") }
    end
    fails(ZeroDivisionError) { conn.copy_data('COPY copied FROM STDIN') { 1 / 0 } }
    rows = 0
    conn.copy_data("COPY (SELECT 1 FROM copied WHERE client = #{number}) TO STDOUT") do
      rows += 1 while conn.get_copy_data
    end
    same(rows, 100)
  end
end

check :large_values do
  text = '0123456789abcdef' * 128 * 1024
  together do |_, conn|
    same(value(conn, 'SELECT $1::text', text) == text, true)
    bytes = { value: text, format: 1, type: 17 }
    same(conn.exec_params('SELECT $1', [bytes], 1).getvalue(0, 0).bytesize, text.bytesize)
  end
end

check :binary_and_text do
  connected do |conn|
    conn.prepare('formats', 'SELECT $1::int4')
    same(conn.exec_prepared('formats', [{ value: [7].pack('N'), format: 1 }], 1).getvalue(0, 0), [7].pack('N'))
    elsewhere { same(conn.exec_prepared('formats', ['7'], 0).getvalue(0, 0), '7') }
  end
end

check :cancel do
  connected do |conn|
    connected do |other|
      conn.send_query('/* ruby */ SELECT pg_sleep(15)')
      running = "SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND query LIKE '/* ruby */%'"
      sleep 0.01 while value(other, running) == '0'
      conn.cancel
      fails(PG::QueryCanceled) { conn.get_last_result }
      same(value(conn, 'SELECT 1'), '1')
    end
  end
end

check :killed_in_mid_transaction do
  connected do |owner|
    fresh_table(owner, 'killed', 'client int4 PRIMARY KEY')
    together do |number, conn|
      conn.exec('BEGIN; INSERT INTO killed VALUES (0)')
      conn.socket_io.shutdown
      connected { |survivor| same(value(survivor, 'SELECT $1::int4', number), number.to_s) }
    end
    owner.exec('INSERT INTO killed VALUES (0)')
  end
end

check :notices do
  connected do |conn|
    heard = []
    conn.set_notice_processor { |text| heard << text.strip }
    3.times { |turn| elsewhere { conn.exec("DO $$ BEGIN RAISE WARNING 'turn #{turn}'; END $$") } }
    same(heard, ['WARNING:  turn 0', 'WARNING:  turn 1', 'WARNING:  turn 2'])
  end
end

main

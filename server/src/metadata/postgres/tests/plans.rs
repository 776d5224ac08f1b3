//! The plan of every statement: on tables that nobody analysed, where a planner guesses that they are small, and on
//! 100,000 rows of each.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use serde_json::Value;
use tokio_postgres::types::{FromSql, Type};

use super::super::session::Session;
use super::super::{access, commit, load, registry, save, tasks, work};
use super::*;

/// A statement with its name.
type Named = (&'static str, &'static str);

fn regional() -> Vec<Named> {
    let of_registry = registry::regional_statements();
    [load::statements(), save::statements(), work::statements(), commit::statements(), of_registry].concat()
}

/// Goal: a statement that somebody adds is explained too. Method: the lists against the sources.
#[test]
fn no_statement_is_forgotten() {
    let global = [access::statements(), tasks::statements(), registry::global_statements()].concat();
    let listed: BTreeSet<&str> = regional().into_iter().chain(global).map(|(name, _)| name).collect();
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/metadata/postgres");
    for file in fs::read_dir(directory).unwrap() {
        let path = file.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        if path.is_dir() || name == "tests.rs" {
            continue;
        }
        let source = fs::read_to_string(&path).unwrap();
        for call in [".query(\"", ".execute(\"", ".query(\n", ".execute(\n"] {
            let inline =
                source.match_indices(call).filter(|(at, _)| source[at + call.len() - 1..].trim().starts_with('"'));
            assert_eq!(inline.count(), 0, "{name} has a statement without a name");
        }
        // What a node asks once when it starts, of tables of a few rows, and what reads whole tables because it is to.
        if ["cluster.rs", "leaving.rs", "schema.rs", "session.rs", "usage.rs", "whole.rs"].contains(&name.as_str()) {
            continue;
        }
        for statement in named_in(&source) {
            assert!(listed.contains(statement.as_str()), "{statement} of {name} is in no list of statements");
        }
    }
}

/// The names of a file's statements: what is made from lists of columns, and texts that begin as SQL does.
fn named_in(source: &str) -> Vec<String> {
    let constants = source.split("\nconst ").skip(1).filter(|text| {
        let value = text.split_once('=').map_or("", |(_, value)| value.trim_start());
        ["\"SELECT", "\"(SELECT", "\"INSERT", "\"UPDATE", "\"DELETE", "\"WITH"]
            .iter()
            .any(|verb| value.starts_with(verb))
    });
    let made = source
        .split("\nstatic ")
        .skip(1)
        .filter(|text| text.split_once(": ").is_some_and(|(_, of)| of.starts_with("Sql ")));
    constants.chain(made).map(|text| text.split(':').next().unwrap().to_owned()).collect()
}

/// Goal: no statement reads more of a table than it answers, also before the tables were ever analysed. Method: the plan of
/// each, as a session here makes it.
#[test]
fn every_statement_finds_its_rows_by_an_index() {
    let (database, _) = fresh();
    with_tokio(async {
        let session = Session::open(&database).await.unwrap();
        prepare(&session, &regional()).await;
        for (name, statement) in regional() {
            let values = values_of_any(&session, statement).await;
            let explain = Box::leak(format!("EXPLAIN EXECUTE {name}{values}").into_boxed_str());
            let plan = sql_lines(&session, explain).await;
            let small = ["timeline", "generations"].iter().any(|table| plan.contains(&format!("Seq Scan on {table}")));
            assert!(!plan.contains("Seq Scan") || small, "{statement}:\n{plan}");
            // A filter reads rows to throw them away; these throw away what the index itself cannot know.
            let filters = plan.lines().map(str::trim).filter(|line| line.contains("Filter:"));
            let known = ["(NOT delete_marker)", "(blob IS NOT NULL)", "(generation = $1)"];
            let bad: Vec<&str> = filters.filter(|line| !known.iter().any(|known| line.contains(known))).collect();
            assert!(bad.is_empty(), "{statement}: {bad:?}\n{plan}");
            assert!(!plan.contains("Hash Join") && !plan.contains("Merge Join"), "{statement}:\n{plan}");
        }
    });
}

/// Goal: a statement costs the same on large tables. Method: each one runs on 100,000 rows of every table that grows, and
/// what each step of it read is held against what it answered.
#[test]
fn a_statement_reads_what_it_answers() {
    let (database, _) = fresh();
    with_tokio(async {
        let session = Session::open(&database).await.unwrap();
        session.run("SET statement_timeout = 0; SET enable_seqscan = on").await.unwrap();
        session.run(FUNCTIONS).await.unwrap();
        session.run(REGIONAL_ROWS).await.unwrap();
        session.run("SET enable_seqscan = off").await.unwrap();
        look_at(&session, &regional(), regional_calls).await;
    });
}

/// The same for apps and grants, of which a change reads the whole, and a look at them nothing.
#[test]
fn a_statement_of_access_reads_what_it_answers() {
    let server = server();
    let name = server.fresh_name();
    with_tokio(async {
        sql(server, "postgres", &format!("CREATE DATABASE {name}")).await;
        let database = Database::parse("global", &server.url(&name)).unwrap();
        migrate(&database, GLOBAL).await.unwrap();
        let session = Session::open(&database).await.unwrap();
        session.run("SET statement_timeout = 0").await.unwrap();
        session.run(GLOBAL_ROWS).await.unwrap();
        look_at(&session, &access::statements(), access_calls).await;
        look_at(&session, &tasks::statements(), task_calls).await;
        // Its statements share names with others. Counting all names is for administrators.
        let session = Session::open(&database).await.unwrap();
        let of_registry = registry::global_statements().into_iter().filter(|(name, _)| *name != "REGIONS");
        look_at(&session, &of_registry.collect::<Vec<_>>(), registry_calls).await;
    });
}

async fn prepare(session: &Session, statements: &[Named]) {
    for (name, statement) in statements {
        session.run(&format!("PREPARE {name} AS {statement}")).await.unwrap();
    }
}

/// Runs every statement with the values that `calls` has for it, and looks at what each step read.
async fn look_at(session: &Session, statements: &[Named], calls: fn(&str) -> Vec<String>) {
    prepare(session, statements).await;
    let mut wrong = Vec::new();
    for (name, statement) in statements {
        let calls = if statement.starts_with("INSERT") { vec![String::new()] } else { calls(name) };
        for values in calls {
            let inserts = statement.starts_with("INSERT");
            // New rows need no plan but an index for the key that they may meet; they are not made.
            let (call, measured) = if inserts {
                (values_of_any(session, statement).await, "")
            } else if values.is_empty() {
                (String::new(), "ANALYZE, BUFFERS, ")
            } else {
                (format!("({values})"), "ANALYZE, BUFFERS, ")
            };
            session.run("BEGIN").await.unwrap();
            let explain: &'static str = format!("EXPLAIN ({measured}FORMAT JSON) EXECUTE {name}{call}").leak();
            let rows = session.query(explain, &[]).await.unwrap_or_else(|error| panic!("{name}({values}): {error}"));
            session.run("ROLLBACK").await.unwrap();
            let Json(plan) = rows[0].get(0);
            let cost = Cost::of(&plan[0]["Plan"]);
            let whole = cost.tables_read_whole.iter().find(|table| !SMALL.contains(&table.as_str()));
            let mut complaints = vec![(whole.is_some(), "a table is read whole")];
            if !inserts {
                complaints.extend([
                    (cost.answered == 0.0, "the values find nothing"),
                    (cost.rows > 1_500.0 + 2.0 * cost.answered, "more rows are read than answered"),
                    (cost.sorted > 2_000.0, "many rows are sorted"),
                    (cost.blocks > 300.0 + 8.0 * cost.answered, "many pages are read"),
                ]);
            }
            for (_, complaint) in complaints.iter().filter(|(is_so, _)| *is_so) {
                eprintln!("{name}({values}): {complaint}: {cost:?}\n{plan:#}");
                wrong.push(format!("{name}({values}): {complaint}"));
            }
        }
    }
    assert_eq!(wrong, Vec::<String>::new());
}

/// What a statement read.
#[derive(Debug, Default)]
struct Cost {
    /// Rows that it answered or changed.
    answered: f64,
    /// Rows that its greediest step read, also those that it threw away.
    rows: f64,
    /// Rows of its largest sort.
    sorted: f64,
    /// Pages of tables and indexes.
    blocks: f64,
    tables_read_whole: Vec<String>,
}

impl Cost {
    fn of(plan: &Value) -> Self {
        let changes = plan["Node Type"] == "ModifyTable";
        let answered = rows_of(if changes { &plan["Plans"][0] } else { plan });
        let blocks = number(&plan["Shared Hit Blocks"]) + number(&plan["Shared Read Blocks"]);
        let mut cost = Self { answered, blocks, ..Self::default() };
        cost.add(plan);
        cost
    }

    fn add(&mut self, step: &Value) {
        let loops = number(&step["Actual Loops"]);
        let removed =
            ["Filter", "Join Filter", "Index Recheck"].map(|by| number(&step[format!("Rows Removed by {by}")]));
        self.rows = self.rows.max(rows_of(step) + removed.iter().sum::<f64>() * loops);
        match step["Node Type"].as_str().unwrap() {
            "Seq Scan" => self.tables_read_whole.push(step["Relation Name"].as_str().unwrap().to_owned()),
            "Sort" | "Incremental Sort" => self.sorted = self.sorted.max(rows_of(step)),
            _ => {}
        }
        for below in step["Plans"].as_array().into_iter().flatten() {
            self.add(below);
        }
    }
}

fn rows_of(step: &Value) -> f64 {
    number(&step["Actual Rows"]) * number(&step["Actual Loops"])
}

fn number(value: &Value) -> f64 {
    value.as_f64().unwrap_or(0.0)
}

/// A column of type json.
struct Json(Value);

impl<'a> FromSql<'a> for Json {
    fn from_sql(_: &Type, raw: &'a [u8]) -> Result<Self, Box<dyn std::error::Error + Sync + Send>> {
        Ok(Self(serde_json::from_slice(raw)?))
    }

    fn accepts(kind: &Type) -> bool {
        *kind == Type::JSON
    }
}

async fn sql_lines(session: &Session, text: &'static str) -> String {
    let rows = session.query(text, &[]).await.unwrap();
    rows.iter().map(|row| row.get::<_, String>(0)).collect::<Vec<_>>().join("\n")
}

/// Some value for each parameter, for a plan that does not run.
async fn values_of_any(session: &Session, statement: &'static str) -> String {
    let types = session.prepare(statement).await.unwrap();
    let values = types.params().iter().map(|kind| match kind.name() {
        "_int8" | "_int4" | "_int2" => "'{1,2}'",
        "_bytea" => r#"'{"\\x01","\\x02"}'"#,
        "_text" => "'{a,b}'",
        "_bool" => "'{t,f}'",
        "bytea" => r"'\x01'",
        "text" => "'a'",
        _ => "1",
    });
    let values = values.collect::<Vec<_>>().join(", ");
    if values.is_empty() { values } else { format!("({values})") }
}

/// The values with which a statement of the regional database runs: in the midst of its table, and where a page begins.
fn regional_calls(name: &str) -> Vec<String> {
    // Behind every key.
    let end = format!(r"'\x{}'", "ff".repeat(1025));
    let calls: &[&str] = match name {
        "WRITERS" | "BUCKETS" | "DELETE_BUCKETS" => &["'{5,500}'"],
        "WRITES" | "BLOBS" | "BLOBS_LOCKED" | "UPLOADS" | "DELETE_BLOBS" | "DELETE_UPLOADS" => {
            &["ARRAY[id(5), id(50000)]"]
        }
        "DELETE_PARTS" => &["ARRAY[id(5), id(500)]"],
        "BUCKETS_NAMED" => &["'{bucket000005,bucket050000}'"],
        "BUCKETS_OF_TENANT" => &["50, '', 1000", "50, 'bucket050500', 100"],
        "BUCKET_COUNT" => &["50"],
        "BUCKETS_BY_ID" => &["0, 1000", "50000, 1000"],
        "USAGE" => &["'{1,1,2}', '{5,50000,5}'"],
        "DELETE_USAGE" => &["'{1,1}', '{5,50000}'"],
        "TENANT_QUOTAS" => &["'{5,500}'"],
        "HEADS" | "BLOBS_OF_HEADS" | "DELETE_HEADS" => &["'{1,1}', ARRAY[key(5), key(50000)]"],
        "HEADS_NAMED" => &["'{bucket000001,bucket000001}', ARRAY[key(5), key(50000)]"],
        // A first page, one behind a position, a prefix, and the next key behind a common prefix.
        "HEADS_LISTED" => {
            &["1, '', END, 1000", "1, key(50000), END, 1000", "1, 'd0500/', 'd05000', 1000", "1, 'd05000', END, 1"]
        }
        "HAS_VERSIONS" => &["1"],
        "SEGMENTS" => &["1, 1, 0, 10, 1000", "1, 1, 5000, 5100, 1000", "1, 5000, 0, 100, 1000"],
        "SEGMENTS_OF_PARTS" => &["1, 1, 0, 1000", "1, 1, 9990, 1000", "1, 5000, 0, 1000"],
        "BLOBS_AFTER" => &["id(0), 1000", "id(50000), 1000"],
        "BLOBS_IN_DEBT" => &["id(0), 1000", "id(99000), 1000"],
        "GARBAGE_AFTER" => &["0, id(0), 1000", "50000, id(50000), 1000"],
        "UPLOADS_UNDER_WAY" => {
            &["1, '', id(0), END, 1000", "1, key(50000), id(50000), END, 1000", "1, 'd0500/', id(0), 'd05000', 1000"]
        }
        "UPLOADS_AFTER" => &["'', 1000", "id(50000), 1000"],
        "COMPLETED" | "COMPLETED_LOCKED" => &["60000, 1000"],
        "PARTS_NUMBERED" => &["ARRAY[id(1), id(500)], '{9990,5}'"],
        "PARTS" => &["id(1), 0, 1000", "id(1), 9000, 1000", "id(1), 0, 10000"],
        "COUNTERS" => &[""],
        "SEEN" => &["50000, id(50000)"],
        "FORGET_WRITES" => &["50000"],
        "LOCK" => &["'{1,2}', '{t,f}'"],
        "LOCK_NAME" => &["5"],
        "BUCKET_OF_NAME" => &["'bucket050000'"],
        "BUCKETS_BEHIND" => &["'', 500", "'bucket050000', 500"],
        "BUCKETS_THERE" => &["'{5,50000}'"],
        "STAMPS" => &["256"],
        "DELETE_SEGMENTS" => &["'{1,1}', '{1,5000}'"],
        "DELETE_GARBAGE" => &["'{5,50000}', ARRAY[id(5), id(50000)]"],
        "UPDATE_BLOBS" => {
            &["ARRAY[id(5), id(50000)], '{2,2}', '{1,1}', ARRAY[id(1), id(1)], '{1,2}', '{1,1}', '{f,t}'"]
        }
        other => panic!("{other} has no values to run with: give it some here"),
    };
    calls.iter().map(|call| call.replace("END", &end)).collect()
}

fn access_calls(name: &str) -> Vec<String> {
    let call = match name {
        "REVISION" | "HOLD" | "ACCESS" | "TENANTS" | "APPS" | "GRANTS" | "PUBLIC" | "ROLES" | "USERS"
        | "TOKEN_KEYS" | "DENIED" => "",
        "SET_ACCESS" => "5, 5",
        "DROP_TENANT" => "1000",
        "DROP_APP" => "'app000500'",
        "DROP_GRANT" => "'app000500', 'object:read', 'bucket050000/*', ''",
        "DROP_PUBLIC" => "500",
        "DROP_ROLE" => "'role50'",
        "DROP_TOKEN_KEY" => "'key5'",
        "DROP_DENIED" => "'token000500'",
        "DROP_USER" => "'user000500'",
        "AUDIT" => "1000",
        other => panic!("{other} has no values to run with: give it some here"),
    };
    vec![call.to_owned()]
}

fn task_calls(name: &str) -> Vec<String> {
    let calls: &[&str] = match name {
        "NOW" => &[""],
        "LISTED" | "COUNT" => &["'here'"],
        "ALIKE" => &["'here', 'delete-bucket', '500/b'"],
        // The next one in its turn, and one of which the lease has ended.
        "DUE" => &[
            "'here', '{delete-bucket,sweep}', 100, 1, 1, '{sweep}', 'node 1'",
            "'here', '{delete-bucket,sweep}', 0, 1, 2, '{sweep}', 'node 1'",
        ],
        "HELD" => &["'here', 500"],
        "SAVE" => &["500, 2, 1, 5, 5, 1, 1, '', NULL, 5"],
        "DROP" => &["500"],
        other => panic!("{other} has no values to run with: give it some here"),
    };
    calls.iter().map(|call| (*call).to_owned()).collect()
}

fn registry_calls(name: &str) -> Vec<String> {
    let write = "decode(lpad(to_hex(50002), 32, '0'), 'hex')";
    vec![match name {
        "OWNER" => "'bucket050002'".to_owned(),
        "ROW" => "'bucket050002', 'here'".to_owned(),
        "HOLD" => format!("'bucket050002', 'here', {write}, 5, 1"),
        "FREE" => format!("'bucket050002', 'here', {write}"),
        "NAME_OF" => "'here', 50002".to_owned(),
        "CLAIMED" => "'here', 0, 500".to_owned(),
        "HELD" => "'here', 'bucket050000', 500".to_owned(),
        "OF_OTHERS" => "'here', '{bucket000001,bucket050002}'".to_owned(),
        other => panic!("{other} has no values to run with: give it some here"),
    }]
}

/// Tables that are read whole: of one row, or those that are kept in memory and read when their revision is another one.
const SMALL: [&str; 11] = [
    "timeline",
    "generations",
    "access",
    "tenants",
    "apps",
    "grants",
    "public_buckets",
    "roles",
    "users",
    "token_keys",
    "denied_tokens",
];

/// Ids, blobs and keys by number.
const FUNCTIONS: &str = r"
    CREATE FUNCTION id(i bigint) RETURNS bytea IMMUTABLE LANGUAGE sql
        AS $$ SELECT decode(lpad(to_hex(i), 32, '0'), 'hex') $$;
    CREATE FUNCTION key(i bigint) RETURNS bytea IMMUTABLE LANGUAGE sql
        AS $$ SELECT convert_to('d' || lpad((i / 100)::text, 4, '0') || '/k' || lpad(i::text, 6, '0'), 'UTF8') $$;
";

/// One bucket, version and upload are large among many small ones.
const REGIONAL_ROWS: &str = r"
    INSERT INTO writers SELECT i, 1, i FROM generate_series(1, 1000) AS i;
    INSERT INTO writes SELECT i, id(i), '\x01' FROM generate_series(1, 100000) AS i;
    INSERT INTO buckets (id, name, tenant, region, state, generation, created_at_ms, versioning, ownership,
            public_access_block, lock_enabled)
        SELECT i, 'bucket' || lpad(i::text, 6, '0'), i / 1000, 'here', 1, 1, i, 0, 1, 15, false
        FROM generate_series(1, 100000) AS i;
    INSERT INTO heads (bucket, key, generation, write_id, is_null, delete_marker, owner, etag, size, checksum_algorithm,
            checksum_of, checksum, crc64nvme, content_type, last_modified_ms, content, blob, blob_offset, blob_length,
            storage_class, legal_hold)
        SELECT 1, key(i), i, id(i), true, false, 1, md5(i::text), i, 3, 1, id(i), i, 'binary/octet-stream', i, 1, id(i), 0, i,
            1, false
        FROM generate_series(0, 99999) AS i;
    INSERT INTO segments (bucket, version, start, blob, blob_offset, blob_length, part, part_size, part_etag,
            part_checksum_algorithm, part_checksum_of, part_checksum)
        SELECT 1, CASE WHEN i < 10000 THEN 1 ELSE i / 10 END, CASE WHEN i < 10000 THEN i ELSE i % 10 END, id(i), 0, 1,
            CASE WHEN i < 10000 THEN i + 1 ELSE i % 10 + 1 END, 1, md5(i::text), 3, 1, id(i)
        FROM generate_series(0, 99999) AS i;
    INSERT INTO blobs (blob, data_shards, parity_shards, length, places, refs, state, in_debt)
        SELECT id(i), 4, 2, i, decode(repeat('0123456789abcdef', 12), 'hex'), 1, 1, i % 1000 = 0
        FROM generate_series(1, 100000) AS i;
    INSERT INTO garbage SELECT i, id(i), i FROM generate_series(1, 100000) AS i;
    INSERT INTO uploads (upload, bucket, key, owner, storage_class, initiated_at_ms, completed_at_ms)
        SELECT id(i), 1, key(i), 1, 1, i, CASE WHEN i % 2 = 0 THEN i END FROM generate_series(1, 100000) AS i;
    INSERT INTO parts (upload, number, write_id, size, etag, checksum_algorithm, checksum_of, checksum, crc64nvme,
            last_modified_ms, blob, blob_offset, blob_length)
        SELECT id(CASE WHEN i < 10000 THEN 1 ELSE i / 10 - 990 END), CASE WHEN i < 10000 THEN i + 1 ELSE i % 10 + 1 END, id(i), 1,
            md5(i::text), 3, 1, id(i), i, i, id(i), 0, 1
        FROM generate_series(0, 99999) AS i;
    INSERT INTO usage SELECT 1, i / 2, 1 + i % 2, i, i, 0 FROM generate_series(1, 100000) AS i;
    INSERT INTO usage SELECT 2, i, 1, i, i, 0 FROM generate_series(1, 1000) AS i;
    INSERT INTO tenant_quotas SELECT i, i, NULL FROM generate_series(1, 1000) AS i;
    ANALYZE;
";

const GLOBAL_ROWS: &str = r"
    INSERT INTO tenants (id, name) OVERRIDING SYSTEM VALUE
        SELECT i, 'tenant' || lpad(i::text, 6, '0') FROM generate_series(1, 1000) AS i;
    INSERT INTO apps SELECT 'app' || lpad(i::text, 6, '0'), 1 + i % 999, 'name' || i, '\x01', i FROM generate_series(1, 1000) AS i;
    INSERT INTO grants
        SELECT 'app' || lpad((1 + (i - 1) / 100)::text, 6, '0'), 'object:read', 'bucket' || lpad(i::text, 6, '0') || '/*', ''
        FROM generate_series(1, 100000) AS i;
    INSERT INTO public_buckets SELECT i, 'bucket' || lpad(i::text, 6, '0'), 1 + i % 999 FROM generate_series(1, 1000) AS i;
    INSERT INTO roles SELECT 'role' || i, ARRAY['disk:read', 'repair:*'], i FROM generate_series(1, 100) AS i;
    INSERT INTO users SELECT 'user' || lpad(i::text, 6, '0'), 'a@example.com', 'role1', 'hash', i, i FROM generate_series(1, 1000) AS i;
    INSERT INTO regions (name, lineage, number)
        VALUES ('here', decode(repeat('00', 16), 'hex'), 0), ('there', decode(repeat('01', 16), 'hex'), 1);
    INSERT INTO bucket_names (name, region, tenant, write_id, bucket)
        SELECT 'bucket' || lpad(i::text, 6, '0'), CASE WHEN i % 2 = 0 THEN 'here' ELSE 'there' END, 1,
            decode(lpad(to_hex(i), 32, '0'), 'hex'), CASE WHEN i % 100 > 0 THEN i END
        FROM generate_series(1, 100000) AS i;
    INSERT INTO tasks (region, kind, about, priority, state, attempts, not_before_ms, leases, lease_node, lease_life, position,
            created_at_ms, changed_at_ms)
        SELECT CASE WHEN i <= 1000 THEN 'here' ELSE 'there' END, 'delete-bucket', i || '/b', 20, CASE WHEN i = 900 THEN 2 ELSE 1 END,
            0, i, 0, CASE WHEN i = 900 THEN 1 END, CASE WHEN i = 900 THEN 1 END, '', i, i
        FROM generate_series(1, 2000) AS i;
    INSERT INTO token_keys SELECT 'key' || i, '\x01', i, i FROM generate_series(1, 30) AS i;
    INSERT INTO denied_tokens SELECT 'token' || lpad(i::text, 6, '0'), i FROM generate_series(1, 1000) AS i;
    INSERT INTO audit (at_ms, who, come_from, action, about, result)
        SELECT i, 'who', '127.0.0.1', 'policy grant', 'app', 'ok' FROM generate_series(1, 100000) AS i;
    ANALYZE;
";

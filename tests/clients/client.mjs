// The facts that tests/db/test_clients.py asks of node-postgres; see there.
import fs from "node:fs";
import readline from "node:readline";
import { createRequire } from "node:module";

const { Client } = createRequire(process.env.NODE_MODULES + "/")("pg");
const env = process.env;
const options = {
  host: env.PGHOST, port: Number(env.PGPORT), database: env.PGDATABASE, user: env.PGUSER,
  password: env.PGPASSWORD, ssl: { ca: fs.readFileSync(env.PGSSLROOTCERT, "utf8") },
};
const say = (name, value) => console.log(`${name}\t${value}`);
const db = new Client(options);
await db.connect();
const row = (await db.query(env.TYPES)).rows[0];
say("ts", row.ts.toISOString());
say("n", row.n);
say("i", (row.i.days ?? 0) * 86400 + (row.i.hours ?? 0) * 3600 + (row.i.minutes ?? 0) * 60
  + (row.i.seconds ?? 0) + (row.i.milliseconds ?? 0) / 1000);
say("a", row.a.map(String).join(" "));
say("nan", row.nan);
say("inf", row.inf);
say("nothing", row.nothing);
say("pair", row.pair);
try {
  await db.query(env.WRONG);
} catch (wrong) {
  say("state", wrong.code);
  say("hint", wrong.hint ? "told" : "none");
}
const lines = readline.createInterface({ input: process.stdin })[Symbol.asyncIterator]();
for (const name of ["before", "after"]) {
  const found = await db.query({ name: "version", text: env.PREPARED, values: [env.WHEN] });
  say(name, found.rows[0].version_id);
  if (name === "before") await lines.next();
}
const pid = (await db.query("select pg_backend_pid() as pid")).rows[0].pid;
const other = new Client(options);
await other.connect();
setTimeout(() => other.query("select pg_cancel_backend($1)", [pid]), 500);
try {
  await db.query("select pg_sleep(60)");
} catch (ended) {
  say("canceled", ended.code);
}
await other.end();
await db.end();
process.exit(0);

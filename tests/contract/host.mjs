// A host in JavaScript, by docs/sql-contract.md alone: posts a job, follows its answer and the events, cancels another. Run by test_node.py,
// which gives the statements of the document and the file of the board. Uses node:sqlite (Node 22.5 and later) or better-sqlite3.
import { createRequire } from 'node:module';

const [path, key] = process.argv.slice(2);
const input = await new Response(process.stdin).text();
const document = JSON.parse(input);

async function open() {
  try {
    const { DatabaseSync } = await import('node:sqlite');
    return new DatabaseSync(path);
  } catch (error) {
    if (error.code !== 'ERR_UNKNOWN_BUILTIN_MODULE') throw error;
    const Database = createRequire(import.meta.url)('better-sqlite3');
    return new Database(path);
  }
}

const db = await open();
const pause = () => new Promise((resolve) => setTimeout(resolve, 5));
db.exec(document['Connecting'][0]);

// The statements of the document, with this host's own values in the places of the examples.
const mine = (sql) => sql.replaceAll("'report-2026-11'", ':key');
const [add, , later] = document['Adding a job'];
const post = db.prepare("INSERT INTO llm_inbox (type, data, \"key\") VALUES ('chat', :data, :key)");
post.run({ data: JSON.stringify({ prompt: "It's said. 'Quotes' and \"more\" follow." }), key });
post.run({ data: '{}', key });  // sent again, as after a lost connection: nothing is added
db.exec(add);
db.exec(later);
const rolled = db.prepare("INSERT INTO llm_inbox (type) VALUES ('chat')");
db.exec('BEGIN IMMEDIATE');
rolled.run();
db.exec('ROLLBACK');
console.log('added');

const where = db.prepare(mine(document['Where a job is'][0]));
const stream = db.prepare(mine(document['Reading an answer while it is written'][0]).replace('(-1, -1)', '(:epoch, :seq)'));
const events = db.prepare(document['Events'][0].replace('log.id > 0', 'log.id > :cursor').replace('LIMIT 500', 'LIMIT 2'));
let place = { epoch: -1, seq: -1 };
let text = '';
let job;
let cursor = 0;
const seen = [];
const deadline = Date.now() + 60000;
for (;;) {
  job = where.all({ key })[0];
  for (const piece of stream.all({ key, ...place })) {
    if (piece.epoch > place.epoch) text = '';
    text += piece.text;
    place = { epoch: piece.epoch, seq: piece.seq };
  }
  for (const event of events.all({ cursor })) {
    seen.push([event.cursor, event.job_id, event.to_state]);
    cursor = event.cursor;
  }
  if (['completed', 'failed', 'cancelled'].includes(job.state)) break;
  if (Date.now() > deadline) throw new Error(`still ${job.state}`);
  await pause();
}
db.exec(document['Cancelling'][0]);
for (let page; (page = events.all({ cursor })).length > 0; cursor = page.at(-1).cursor) {
  seen.push(...page.map((event) => [event.cursor, event.job_id, event.to_state]));
}
let refused = '';
try {
  db.exec("UPDATE llm_jobs SET state = 'waiting' WHERE state = 'completed'");
} catch (error) {
  refused = error.message;
}
console.log(JSON.stringify({ id: job.id, state: job.state, result: JSON.parse(job.result), text, seen, refused }));
db.close();

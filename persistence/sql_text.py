"""SQL as it is run: made from `persistence.statements` and `persistence.schema` by `make sql`, never by hand."""

STATEMENTS: dict[str, str] = {
    "batches.ADOPT": """
UPDATE llm_jobs SET state = 'waiting_children', lease_epoch = lease_epoch + 1, pending = pending + 1, start_by = NULL, held_by = NULL, held_until = NULL, reason = :reason,
        updated_at = :now, changed_by = :actor
    WHERE id = :job_id AND state = 'waiting' AND lease_epoch = 0
""",
    "batches.ALIKE": """
SELECT job.id, job.model, body.data, body.options, job.priority FROM (
        SELECT DISTINCT member.lane AS lane FROM llm_batch_requests AS request CROSS JOIN llm_jobs AS member ON member.id = request.job_id
        WHERE request.batch_id = :batch
    ) AS alike
    CROSS JOIN llm_jobs AS job ON job.lane = alike.lane AND job.state = 'waiting'
    CROSS JOIN llm_job_data AS body ON body.job_id = job.id
    WHERE job.type = :type AND job.lease_epoch = 0 AND job.group_limit IS NULL AND job.conversation_id IS NULL
        AND (job.held_until IS NULL OR job.held_until <= :now) AND (job.start_by IS NULL OR job.start_by > :now)
        AND NOT EXISTS (SELECT 1 FROM llm_queues WHERE name = job.queue AND paused_at IS NOT NULL)
    ORDER BY job.rank DESC, job.id LIMIT :limit + 0
""",
    "batches.BATCH": """
SELECT id, job_id, kind, provider, group_key, endpoint, state, requests, bytes, tokens, tag, sha256, file_id, batch_id, results, offset, polls,
           created_at, creating_at, submitted_at, error
    FROM llm_batches WHERE job_id = :driver ORDER BY id DESC LIMIT 1
""",
    "batches.BODY": """
INSERT INTO llm_batch_bodies (request_id, request) VALUES (:request_id, :request)
""",
    "batches.CALL": """
SELECT job_id, epoch FROM llm_calls WHERE id = :call_id
""",
    "batches.COMPANY": """
SELECT coalesce(sum(jobs), 0) FROM llm_job_counts WHERE type = :type AND (state = 'waiting' OR state = 'active')
""",
    "batches.CREATE": """
INSERT INTO llm_batches (job_id, kind, provider, group_key, endpoint, state, tag, created_at, updated_at)
    VALUES (:driver, :kind, :provider, :group_key, :endpoint, :state, :tag, :now, :now) RETURNING id
""",
    "batches.DROP_GONE": """
UPDATE llm_batch_requests SET state = 'left' WHERE batch_id = :batch AND (state = 'waiting' OR state = 'sent') AND NOT EXISTS (
        SELECT 1 FROM llm_job_edges AS edge WHERE edge.job_id = llm_batch_requests.job_id AND edge.depends_on = :driver
        AND edge.step = '@batch:' || llm_batch_requests.id AND edge.state = 'open')
""",
    "batches.EDGE_OPEN": """
SELECT 1 FROM llm_job_edges WHERE job_id = :job_id AND depends_on = :driver AND step = :step AND state = 'open'
""",
    "batches.END_REQUEST": """
UPDATE llm_batch_requests SET state = :state, error = :error WHERE id = :request
""",
    "batches.FIND": """
SELECT request.id, request.job_id, request.model, request.inputs
    FROM json_each(:ids) AS wanted CROSS JOIN llm_batch_requests AS request ON request.id = wanted.value WHERE request.batch_id = :batch
""",
    "batches.FINGERPRINT": """
SELECT fingerprint FROM llm_batch_requests WHERE id = :request
""",
    "batches.FORGET_ANSWER": """
DELETE FROM llm_call_completions WHERE call_id = :call_id
""",
    "batches.FORGET_BODY": """
DELETE FROM llm_batch_bodies WHERE request_id = :request_id
""",
    "batches.FORGET_HELD": """
DELETE FROM llm_batch_requests WHERE job_id = :job_id AND step = :step AND state = 'again' AND json_extract(error, '$.class') = 'budget'
""",
    "batches.GROUP_CALL": """
SELECT id, coalesce(input_uncached, 0) + coalesce(cache_read, 0) + coalesce(cache_write, 0) + coalesce(output_visible, 0) + coalesce(output_reasoning, 0) + coalesce(cache_write_1h, 0), cost
    FROM llm_calls WHERE job_id = :driver AND step = :step AND state = 'completed' AND origin IS NOT 'group'
""",
    "batches.GROW": """
UPDATE llm_batches SET requests = requests + :requests, bytes = bytes + :bytes, tokens = tokens + :tokens, updated_at = :now WHERE id = :batch
""",
    "batches.HASTEN": """
UPDATE llm_jobs SET priority = max(priority, min(1000000000, :priority + 1)), run_at = CASE WHEN state = 'delayed' THEN min(run_at, :run_at) END
    WHERE id = :driver AND (state = 'delayed' OR state = 'waiting')
""",
    "batches.HOLD": """
UPDATE llm_jobs SET held_by = :held_by, held_until = :until, deferrals = deferrals + 1, reason = :reason, updated_at = :now, changed_by = :actor
    WHERE id = :job_id AND state = 'waiting'
""",
    "batches.INTENDED": """
UPDATE llm_batch_requests SET call_id = :call_id, state = 'sent' WHERE id = :request
""",
    "batches.INTENT": """
INSERT INTO llm_calls (job_id, epoch, attempt, step, fingerprint, provider, model, limit_key, state, reserved_tokens, reserved_cost, sent_at,
        requests, origin)
    SELECT id, lease_epoch, attempt, :step, :fingerprint, :provider, :provider_model, 'batch:' || :limit_key, 'open', :tokens, :reserved_cost, :now,
        0, 'batch'
    FROM llm_jobs WHERE id = :job_id RETURNING id
""",
    "batches.KNOWN": """
SELECT batch_id FROM llm_batches WHERE provider = :provider AND batch_id IS NOT NULL AND created_at >= :since
""",
    "batches.LATE": """
SELECT id, job_id, step, state, model, provider_model, tokens, call_id, bytes FROM llm_batch_requests
    WHERE batch_id = :batch AND (state = 'waiting' OR state = 'sent') AND deadline <= :until ORDER BY id LIMIT :limit + 0
""",
    "batches.LATENCIES": """
SELECT finished_at - sent_at FROM (
        SELECT finished_at, sent_at FROM llm_calls WHERE provider = :provider AND state = 'completed' AND origin IS NULL ORDER BY id DESC LIMIT 200
    ) ORDER BY 1
""",
    "batches.LIST": """
SELECT batch.id, batch.job_id, batch.kind, batch.provider, batch.endpoint, batch.state, job.state, batch.requests, batch.batch_id, batch.created_at,
        batch.submitted_at, batch.ended_at, batch.updated_at, batch.polls, job.run_at, job.held_until, job.reason, batch.error,
        (SELECT json_group_object(state, n) FROM (
            SELECT state, count(*) AS n FROM llm_batch_requests WHERE llm_batch_requests.batch_id = batch.id GROUP BY state))
    FROM llm_batches AS batch JOIN llm_jobs AS job ON job.id = batch.job_id
    WHERE (:every OR (batch.state <> 'applied' AND batch.state <> 'failed')) ORDER BY batch.id DESC LIMIT :limit + 0
""",
    "batches.LIVE": """
SELECT count(*) FROM llm_batch_requests WHERE batch_id = :batch AND (state = 'waiting' OR state = 'sent')
""",
    "batches.MEMBER": """
SELECT id, job_id, step, state, model, provider_model, tokens, call_id, bytes
    FROM llm_batch_requests WHERE id = :request AND batch_id = :batch
""",
    "batches.MEMBERS": """
SELECT member.id, job_id, step, state, model, provider_model, tokens, call_id, bytes, request
    FROM llm_batch_requests AS member CROSS JOIN llm_batch_bodies AS body ON body.request_id = member.id
    WHERE batch_id = :batch AND state = :state AND member.id > :after ORDER BY member.id LIMIT :limit + 0
""",
    "batches.MOVE": """
UPDATE llm_batches SET state = :state, sha256 = coalesce(:sha256, sha256), requests = coalesce(:requests, requests), file_id = coalesce(:file_id, file_id),
        batch_id = coalesce(:batch_id, batch_id), results = coalesce(:results, results), offset = coalesce(:offset, offset),
        polls = coalesce(:polls, polls), error = coalesce(:error, error), updated_at = :now,
        sealed_at = CASE WHEN :state = 'sealed' AND sealed_at IS NULL THEN :now ELSE sealed_at END,
        creating_at = CASE WHEN :state = 'creating' AND state <> 'creating' THEN :now ELSE creating_at END,
        submitted_at = CASE WHEN :state = 'submitted' AND submitted_at IS NULL THEN :now ELSE submitted_at END,
        ended_at = CASE WHEN :state = 'ended' AND ended_at IS NULL THEN :now ELSE ended_at END
    WHERE id = :batch
""",
    "batches.MOVE_EDGE": """
UPDATE llm_job_edges SET depends_on = :driver WHERE job_id = :job_id AND depends_on = :old AND step = :step AND state = 'open'
""",
    "batches.MOVE_REQUEST": """
UPDATE llm_batch_requests SET batch_id = :target, state = 'waiting', call_id = NULL WHERE id = :request
""",
    "batches.NEXT_DEADLINE": """
SELECT min(deadline) FROM llm_batch_requests WHERE batch_id = :batch AND (state = 'waiting' OR state = 'sent')
""",
    "batches.OF_JOB": """
SELECT request.step, request.state, batch.id, batch.job_id, batch.kind, batch.provider, batch.state, batch.batch_id, batch.requests, request.error
    FROM llm_batch_requests AS request JOIN llm_batches AS batch ON batch.id = request.batch_id WHERE request.job_id = :job_id ORDER BY request.id
""",
    "batches.OPEN": """
SELECT id, job_id, requests, bytes, tokens FROM llm_batches AS batch
    WHERE group_key = :group_key AND state = 'open' AND EXISTS (SELECT 1 FROM llm_jobs AS driver
        WHERE driver.id = batch.job_id AND (driver.state = 'delayed' OR driver.state = 'waiting' OR driver.state = 'active'))
    ORDER BY id DESC LIMIT 1
""",
    "batches.PARK": """
UPDATE llm_jobs SET state = 'waiting_children', lease_epoch = lease_epoch + 1, lease_owner = NULL, lease_until = NULL, alone = 0,
        start_by = NULL, pending = :requests, reason = :reason, updated_at = :now, changed_by = :actor
    WHERE id = :job_id AND lease_epoch = :epoch AND state = 'active'
""",
    "batches.PART": """
SELECT id, job_id, step, state, model, provider_model, tokens, call_id, bytes FROM llm_batch_requests WHERE batch_id = :batch AND (state = 'waiting' OR state = 'sent') ORDER BY id LIMIT :limit + 0
""",
    "batches.PAST": """
SELECT request.job_id, request.step, sum(request.state <> 'again' OR json_extract(request.error, '$.class') IS NOT 'budget'), max(request.state = 'left' AND request.error IS NOT NULL),
        max(CASE WHEN request.state = 'failed' AND NOT EXISTS (
            SELECT 1 FROM llm_job_transitions AS log WHERE log.job_id = request.job_id AND log.at >= request.at
            AND (log.from_state = 'failed' OR log.from_state = 'cancelled')
        ) THEN request.error END)
    FROM json_each(:ids) AS wanted CROSS JOIN llm_batch_requests AS request ON request.job_id = wanted.value
    WHERE request.state <> 'done' GROUP BY request.job_id, request.step
""",
    "batches.PRIORITY": """
SELECT priority FROM llm_jobs WHERE id = :job_id
""",
    "batches.RECOUNT": """
UPDATE llm_batches SET (requests, bytes, tokens) = (
        SELECT count(*), coalesce(sum(bytes), 0), coalesce(sum(tokens), 0) FROM llm_batch_requests
        WHERE batch_id = :batch AND (state = 'waiting' OR state = 'sent')
    ) WHERE id = :batch
""",
    "batches.REQUEST": """
INSERT INTO llm_batch_requests (batch_id, job_id, step, model, provider_model, inputs, fingerprint, limit_key, bytes, tokens, reserved_cost,
        deadline, at)
    VALUES (:batch, :job_id, :step, :model, :provider_model, :inputs, :fingerprint, :limit_key, :bytes, :tokens, :reserved_cost, :deadline, :now)
    RETURNING id
""",
    "batches.SHARE": """
INSERT INTO llm_calls (job_id, epoch, attempt, step, fingerprint, provider, model, limit_key, state, reserved_tokens, sent_at, finished_at,
        requests, origin, input_uncached, cost, price_id)
    SELECT :job_id, member.lease_epoch, member.attempt, :step, :fingerprint, one.provider, one.model, 'group:' || one.limit_key, 'completed', 0, one.sent_at, :now,
        0, 'group', :tokens, :cost, one.price_id
    FROM llm_calls AS one CROSS JOIN llm_jobs AS member ON member.id = :job_id
    WHERE one.id = :call_id AND NOT EXISTS (
        SELECT 1 FROM llm_calls AS first WHERE first.job_id = :job_id AND first.step = :step AND first.state = 'completed')
    RETURNING id
""",
    "batches.SHARED_OUT": """
UPDATE llm_calls SET input_uncached = NULL, cache_read = NULL, cache_write = NULL, output_visible = NULL, output_reasoning = NULL, cache_write_1h = NULL, cost = CASE WHEN cost IS NOT NULL THEN 0 END, origin = 'group'
    WHERE id = :call_id
""",
    "batches.SUPERSEDE": """
UPDATE llm_batch_requests SET state = 'left' WHERE job_id = :job_id AND step = :step AND (state = 'waiting' OR state = 'sent')
""",
    "batches.UNANSWERED": """
SELECT id, job_id, step, state, model, provider_model, tokens, call_id, bytes FROM llm_batch_requests
    WHERE batch_id = :batch AND (state = 'waiting' OR state = 'sent' OR (state = 'left' AND call_id IS NOT NULL AND EXISTS (
        SELECT 1 FROM llm_calls WHERE llm_calls.id = call_id AND llm_calls.state = 'open')))
    ORDER BY id LIMIT :limit + 0
""",
    "batches.UNINTENDED": """
SELECT id, job_id, step, model, fingerprint, limit_key, tokens, reserved_cost, provider_model, deadline FROM llm_batch_requests
    WHERE batch_id = :batch AND state = 'waiting' AND call_id IS NULL ORDER BY id LIMIT :limit + 0
""",
    "batches.UNSUSPECT": """
UPDATE llm_jobs SET losses = 0 WHERE id = :driver AND losses > 0
""",
    "budgets.BEGIN_AT": """
INSERT INTO llm_budget_usage (budget, period, spent, tokens_spent, updated_at) VALUES (:key, '', :spent, :tokens, :now)
    ON CONFLICT DO UPDATE SET spent = max(spent, excluded.spent), tokens_spent = max(tokens_spent, excluded.tokens_spent)
""",
    "budgets.DESCRIBE": """
INSERT INTO llm_budget_usage (budget, period, cap, token_cap, until, updated_at) VALUES (:key, :in_period, :cap, :token_cap, :until, :now)
    ON CONFLICT DO UPDATE SET cap = excluded.cap, token_cap = excluded.token_cap, until = excluded.until, updated_at = excluded.updated_at
""",
    "budgets.DROP": """
DELETE FROM llm_budgets WHERE llm_budgets.name = :budget_name
""",
    "budgets.FORGET": """
DELETE FROM llm_budget_usage WHERE llm_budget_usage.until IS NOT NULL AND llm_budget_usage.until < :before AND llm_budget_usage.reserved = 0
""",
    "budgets.FREE": """
UPDATE llm_jobs SET held_by = NULL, held_until = NULL, updated_at = :now
    WHERE state = 'waiting' AND held_until IS NOT NULL AND held_by GLOB :held
""",
    "budgets.IN_FLIGHT": """
SELECT coalesce(sum(amount), 0), coalesce(sum(tokens), 0) FROM llm_budget_reservations
    JOIN llm_calls ON llm_calls.id = call_id AND llm_calls.state = 'open'
    WHERE budget = :key AND period = :in_period
""",
    "budgets.JOB": """
WITH RECURSIVE up(id, parent_id, depth) AS (
        SELECT id, parent_id, 0 FROM llm_jobs WHERE id = :job_id
        UNION ALL SELECT above.id, above.parent_id, depth + 1 FROM up CROSS JOIN llm_jobs AS above ON above.id = up.parent_id
    )
    SELECT up.id, job.tag, coalesce(job.root_id, up.id), json_extract(body.options, '$.budget')
    FROM up CROSS JOIN llm_jobs AS job ON job.id = up.id LEFT JOIN llm_job_data AS body ON body.job_id = up.id AND body.options <> '{}'
    WHERE depth = 0 OR json_extract(body.options, '$.budget') IS NOT NULL ORDER BY depth
""",
    "budgets.JOB_BUDGET": """
UPDATE llm_job_data SET options = json_set(options, '$.budget', :dollars) WHERE job_id = :wanted
""",
    "budgets.OF_JOBS": """
SELECT EXISTS (SELECT 1 FROM llm_job_data WHERE options <> '{}' AND json_extract(options, '$.budget') IS NOT NULL)
""",
    "budgets.ON_BOARD": """
SELECT llm_budgets.name, llm_budgets.settings
FROM llm_budgets ORDER BY llm_budgets.name
""",
    "budgets.PUT": """
INSERT INTO llm_budgets (name, settings, at) VALUES (:budget_name, :stored, :now) ON CONFLICT (name) DO UPDATE SET settings = excluded.settings, at = excluded.at
""",
    "budgets.RESERVE": """
INSERT INTO llm_budget_reservations (call_id, budget, period, amount, tokens) VALUES (:call_id, :key, :in_period, :amount, :tokens)
    ON CONFLICT DO NOTHING
""",
    "budgets.SETTLE": """
UPDATE llm_budget_reservations SET
        amount = (SELECT CASE WHEN state = 'failed' AND cost IS NULL AND json_extract(error, '$.billed') IS NOT 'yes' THEN 0 ELSE coalesce(cost, amount) END FROM llm_calls WHERE id = call_id),
        tokens = (SELECT CASE WHEN state = 'failed' AND cost IS NULL AND json_extract(error, '$.billed') IS NOT 'yes' THEN 0 WHEN coalesce(input_uncached, cache_read, cache_write, output_visible, output_reasoning, cache_write_1h) IS NOT NULL THEN coalesce(input_uncached, 0) + coalesce(cache_read, 0) + coalesce(cache_write, 0) + coalesce(output_visible, 0) + coalesce(output_reasoning, 0) + coalesce(cache_write_1h, 0) ELSE tokens END FROM llm_calls WHERE id = call_id)
    WHERE call_id = :call_id AND EXISTS (SELECT 1 FROM llm_calls WHERE id = :call_id AND state NOT IN ('open', 'unknown'))
""",
    "budgets.SETTLED": """
DELETE FROM llm_budget_reservations WHERE call_id = :call_id
""",
    "budgets.STANDING": """
SELECT llm_budget_usage.spent, llm_budget_usage.reserved, llm_budget_usage.tokens_spent, llm_budget_usage.tokens_reserved
FROM llm_budget_usage
WHERE llm_budget_usage.budget = :key AND llm_budget_usage.period = :in_period
""",
    "budgets.USAGE": """
SELECT * FROM (
        SELECT budget, period, cap, token_cap, spent, reserved, tokens_spent, tokens_reserved, until, updated_at
        FROM llm_budget_usage ORDER BY updated_at DESC LIMIT :limit + 0
    ) ORDER BY budget, period DESC
""",
    "cache.DROP": """
DELETE FROM llm_cache WHERE "key" = :key
""",
    "cache.FIND": """
SELECT completion, cost FROM llm_cache WHERE "key" = :key AND at >= :oldest
""",
    "cache.FORGET_FLIGHTS": """
DELETE FROM llm_cache_flights WHERE NOT EXISTS (SELECT 1 FROM llm_jobs AS job WHERE job.id = llm_cache_flights.job_id AND job.lease_epoch = llm_cache_flights.epoch AND job.state = 'active')
""",
    "cache.HIT": """
INSERT INTO llm_calls (job_id, epoch, attempt, step, fingerprint, provider, model, limit_key, state, reserved_tokens, sent_at, finished_at,
        input_uncached, cache_read, cache_write, output_visible, output_reasoning, cache_write_1h, cost, finish, requests, origin, saved)
    SELECT id, lease_epoch, attempt, :step, :fingerprint, :provider, :model, :limit_key, 'completed', 0, :now, :now,
        0, 0, 0, 0, 0, 0, 0, :finish, 0, 'cache', :saved
    FROM llm_jobs WHERE id = :job_id AND lease_epoch = :epoch AND state = 'active'
    RETURNING id
""",
    "cache.KEEP": """
INSERT INTO llm_cache ("key", completion, cost, at, used_at, bytes) VALUES (:key, :completion, :cost, :now, :now, :bytes)
    ON CONFLICT DO UPDATE SET completion = excluded.completion, cost = excluded.cost, at = excluded.at, used_at = excluded.used_at,
        bytes = excluded.bytes
""",
    "cache.LAND": """
DELETE FROM llm_cache_flights WHERE "key" = :key AND job_id = :job_id AND epoch = :epoch AND number = :number
""",
    "cache.LEAD": """
INSERT INTO llm_cache_flights ("key", job_id, epoch, number, at)
    SELECT :key, id, lease_epoch, :number, :now FROM llm_jobs WHERE id = :job_id AND lease_epoch = :epoch AND state = 'active'
    ON CONFLICT DO UPDATE SET job_id = excluded.job_id, epoch = excluded.epoch, number = excluded.number, at = excluded.at
    WHERE (llm_cache_flights.job_id = excluded.job_id AND llm_cache_flights.epoch = excluded.epoch
            AND llm_cache_flights.number = excluded.number)
        OR NOT EXISTS (SELECT 1 FROM llm_jobs AS job WHERE job.id = llm_cache_flights.job_id AND job.lease_epoch = llm_cache_flights.epoch AND job.state = 'active')
""",
    "cache.OLDEST": """
SELECT "key", bytes FROM llm_cache ORDER BY used_at LIMIT :limit + 0
""",
    "cache.OVERVIEW": """
SELECT count(*), coalesce(sum(bytes), 0), coalesce(sum(hits), 0), min(at), max(at) FROM llm_cache
""",
    "cache.SAVED": """
SELECT count(*), sum(saved) FROM llm_calls WHERE origin = 'cache'
""",
    "cache.SIZE": """
SELECT count(*), coalesce(sum(bytes), 0) FROM llm_cache
""",
    "cache.USED": """
UPDATE llm_cache SET hits = hits + 1, used_at = :now WHERE "key" = :key
""",
    "claims.AGE": """
WITH RECURSIVE levels(boost) AS (
        SELECT (SELECT boost FROM llm_jobs WHERE state = 'waiting' AND boost < :most ORDER BY boost DESC LIMIT 1)
        UNION ALL
        SELECT (SELECT boost FROM llm_jobs WHERE state = 'waiting' AND boost < levels.boost ORDER BY boost DESC LIMIT 1)
        FROM levels WHERE levels.boost IS NOT NULL
    )
    UPDATE llm_jobs SET updated_at = :now,
        boost = min(:most, boost + :step * (1 + (:now - updated_at - CASE boost WHEN 0 THEN :after ELSE :every END) / :every))
    WHERE id IN (
        SELECT job.id FROM levels CROSS JOIN llm_jobs AS job
        WHERE job.state = 'waiting' AND job.boost = levels.boost
            AND job.updated_at <= :now - CASE levels.boost WHEN 0 THEN :after ELSE :every END
        LIMIT :limit + 0
    )
""",
    "claims.BODIES": """
SELECT llm_job_data.job_id, llm_job_data.data, llm_job_data.options
FROM llm_job_data
WHERE llm_job_data.job_id IN (SELECT anon_1.value
FROM json_each(:ids) AS anon_1)
""",
    "claims.CLAIM": """
UPDATE llm_jobs SET state='active', lease_epoch=(llm_jobs.lease_epoch + 1), lease_owner=:owner, lease_until=:lease_until, alone=0, attempt=(llm_jobs.attempt + 1), held_by=NULL, held_until=NULL, progress=0, progress_message=NULL, updated_at=:now, started_at=:now, changed_by=:actor, reason=NULL WHERE llm_jobs.id IN (
    WITH RECURSIVE spread(lane, quota, shared, part) AS (
        SELECT wanted.key, json_extract(wanted.value, '$[0]'), json_extract(wanted.value, '$[1]'), (
            SELECT lane FROM llm_jobs
            WHERE state = 'waiting' AND lane >= wanted.key || '|' || :start AND lane < wanted.key || '}' ORDER BY lane LIMIT 1
        )
        FROM json_each(:quotas) AS wanted
        WHERE NOT EXISTS (SELECT 1 FROM llm_queues WHERE name = substr(wanted.key, 1, instr(wanted.key, '|') - 1) AND paused_at IS NOT NULL)
        UNION ALL
        SELECT spread.lane, quota, shared,
            (SELECT lane FROM llm_jobs WHERE state = 'waiting' AND lane > spread.part AND lane < spread.lane || '}' ORDER BY lane LIMIT 1)
        FROM spread WHERE spread.part IS NOT NULL
        LIMIT :parts + 0
    ),
    heads AS (
        SELECT spread.part, spread.quota, spread.shared, job.id, job.rank, job.group_key, job.group_limit,
            (SELECT count(*) FROM llm_jobs AS other WHERE other.state = 'active' AND other.group_key = job.group_key) AS worked_on, row_number() OVER (PARTITION BY job.group_key ORDER BY job.rank DESC, job.id) AS nth
        FROM spread LEFT JOIN llm_jobs AS job
            ON job.id = (SELECT mine.id FROM llm_jobs AS mine WHERE mine.state = 'waiting' AND mine.lane = spread.part AND (mine.held_until IS NULL OR mine.held_until <= :now) AND (mine.start_by IS NULL OR mine.start_by > :now) AND mine.losses < :suspect_after ORDER BY mine.rank DESC, mine.id LIMIT 1)
    ),
    best AS (
        SELECT part, quota, shared, worked_on FROM (
            SELECT *, row_number() OVER (PARTITION BY shared ORDER BY rank DESC, CASE WHEN group_key IS NULL THEN 1 ELSE worked_on + nth END, id) AS place
            FROM heads WHERE id IS NOT NULL AND (group_limit IS NULL OR CASE WHEN group_key IS NULL THEN 1 ELSE worked_on + nth END <= group_limit)
        ) WHERE place <= :slots
    ),
    turned AS (
        SELECT best.quota, best.shared, best.worked_on, job.id, job.rank, job.group_key, job.group_limit, row_number() OVER (PARTITION BY job.group_key ORDER BY job.rank DESC, job.id) AS nth
        FROM best LEFT JOIN llm_jobs AS job
            ON job.id IN (SELECT mine.id FROM llm_jobs AS mine WHERE mine.state = 'waiting' AND mine.lane = best.part AND (mine.held_until IS NULL OR mine.held_until <= :now) AND (mine.start_by IS NULL OR mine.start_by > :now) AND mine.losses < :suspect_after ORDER BY mine.rank DESC, mine.id LIMIT :slots + 0)
    ),
    placed AS (
        SELECT id, rank, CASE WHEN group_key IS NULL THEN 1 ELSE worked_on + nth END AS turn, quota, row_number() OVER (PARTITION BY shared ORDER BY rank DESC, CASE WHEN group_key IS NULL THEN 1 ELSE worked_on + nth END, id) AS place
        FROM turned WHERE id IS NOT NULL AND (group_limit IS NULL OR CASE WHEN group_key IS NULL THEN 1 ELSE worked_on + nth END <= group_limit)
    )
    SELECT id FROM placed WHERE place <= quota ORDER BY rank DESC, turn, id LIMIT :slots + 0
    ) RETURNING id, lease_epoch, type, queue, model, priority, rank, requires, group_key, attempt, failures, losses, max_attempts
""",
    "claims.CLAIM_ALONE": """
UPDATE llm_jobs SET state='active', lease_epoch=(llm_jobs.lease_epoch + 1), lease_owner=:owner, lease_until=:lease_until, alone=1, attempt=(llm_jobs.attempt + 1), held_by=NULL, held_until=NULL, progress=0, progress_message=NULL, updated_at=:now, started_at=:now, changed_by=:actor, reason=NULL WHERE llm_jobs.id IN (
    SELECT mine.id FROM llm_jobs AS mine JOIN json_each(:quotas) AS wanted ON wanted.key = mine.queue || '|' || mine.type || '|' || coalesce(mine.model, '') || '|' || coalesce(mine.requires, '')
    WHERE mine.state = 'waiting' AND mine.losses > 0 AND mine.losses >= :suspect_after
        AND (mine.group_limit IS NULL OR mine.group_limit > (SELECT count(*) FROM llm_jobs AS other WHERE other.state = 'active' AND other.group_key = mine.group_key))
        AND NOT EXISTS (SELECT 1 FROM llm_queues WHERE name = mine.queue AND paused_at IS NOT NULL) AND (mine.held_until IS NULL OR mine.held_until <= :now) AND (mine.start_by IS NULL OR mine.start_by > :now) AND json_extract(wanted.value, '$[0]') > 0
    ORDER BY mine.rank DESC, mine.id LIMIT 1
    ) RETURNING id, lease_epoch, type, queue, model, priority, rank, requires, group_key, attempt, failures, losses, max_attempts
""",
    "claims.DUE": """
SELECT min(due) FROM (
        SELECT (SELECT min(run_at) FROM llm_jobs WHERE state = 'delayed') AS due
        UNION ALL SELECT (SELECT min(start_by) FROM llm_jobs WHERE state = 'waiting' AND start_by IS NOT NULL)
        UNION ALL SELECT (SELECT min(held_until) FROM llm_jobs WHERE state = 'waiting' AND held_until IS NOT NULL AND held_until > :now)
        UNION ALL SELECT (SELECT min(next_at) FROM llm_schedules WHERE paused_at IS NULL)
    )
""",
    "claims.EXPIRE": """
UPDATE llm_jobs SET state='failed', held_by=NULL, held_until=NULL, updated_at=:now, finished_at=:now, changed_by=:actor, reason='not started by its deadline' WHERE llm_jobs.id IN (SELECT llm_jobs.id
FROM llm_jobs
WHERE llm_jobs.state = 'waiting' AND llm_jobs.start_by IS NOT NULL AND llm_jobs.start_by <= :now ORDER BY llm_jobs.start_by
 LIMIT :limit + 0 OFFSET 0) RETURNING id
""",
    "claims.FREE_LANE": """
UPDATE llm_jobs SET held_by = NULL, updated_at = :now WHERE id IN (
        SELECT id FROM (
            SELECT id, held_by, held_until FROM llm_jobs WHERE state = 'waiting' AND lane >= :lane || '|' AND lane < :lane || '}'
            ORDER BY lane, rank DESC, id LIMIT 10 * :limit
        ) WHERE held_until IS NULL AND held_by LIKE 'unroutable:%' LIMIT :limit + 0
    )
""",
    "claims.HOLD_LANE": """
UPDATE llm_jobs SET held_by = :reason, updated_at = :now WHERE id IN (
        SELECT id FROM (
            SELECT id, held_by FROM llm_jobs WHERE state = 'waiting' AND lane >= :lane || '|' AND lane < :lane || '}'
            ORDER BY lane, rank DESC, id LIMIT 10 * :limit
        ) WHERE held_by IS NULL LIMIT :limit + 0
    )
""",
    "claims.LANES": """
WITH RECURSIVE lanes(lane, queue, type, model, requires, held_by) AS (
        SELECT queue || '|' || type || '|' || coalesce(model, '') || '|' || coalesce(requires, ''), queue, type, model, requires, held_by
        FROM llm_jobs WHERE id = (SELECT id FROM llm_jobs WHERE state = 'waiting' ORDER BY lane, rank DESC, id LIMIT 1)
        UNION ALL
        SELECT job.queue || '|' || job.type || '|' || coalesce(job.model, '') || '|' || coalesce(job.requires, ''),
            job.queue, job.type, job.model, job.requires, job.held_by
        FROM lanes CROSS JOIN llm_jobs AS job ON job.id = (
            SELECT id FROM llm_jobs WHERE state = 'waiting' AND lane >= lanes.lane || '}' ORDER BY lane, rank DESC, id LIMIT 1
        )
    )
    SELECT lane, queue, type, model,
        (SELECT count(*) FROM (
            SELECT 1 FROM llm_jobs WHERE state = 'waiting' AND lane >= lanes.lane || '|' AND lane < lanes.lane || '}' LIMIT :cap + 0
        )),
        requires, EXISTS (SELECT 1 FROM llm_queues WHERE name = lanes.queue AND paused_at IS NOT NULL), coalesce(held_by LIKE 'unroutable:%', 0)
    FROM lanes
""",
    "claims.LOST": """
SELECT json_extract(held.value, '$[0]'), json_extract(held.value, '$[1]') FROM json_each(:leases) AS held
    WHERE NOT EXISTS (
        SELECT 1 FROM llm_jobs WHERE id = json_extract(held.value, '$[0]') AND lease_epoch = json_extract(held.value, '$[1]') AND state = 'active'
    )
""",
    "claims.OWNED": """
SELECT llm_jobs.id, llm_jobs.lease_epoch, llm_jobs.started_at
FROM llm_jobs
WHERE llm_jobs.state = 'active' AND llm_jobs.lease_owner = :owner AND llm_jobs.lease_until <= :expired_by ORDER BY llm_jobs.lease_until, llm_jobs.id
 LIMIT :limit + 0 OFFSET 0
""",
    "claims.OWNERS": """
WITH RECURSIVE owners(owner) AS (
        SELECT (SELECT lease_owner FROM llm_jobs WHERE state = 'active' ORDER BY lease_owner LIMIT 1)
        UNION ALL
        SELECT (SELECT lease_owner FROM llm_jobs WHERE state = 'active' AND lease_owner > owners.owner ORDER BY lease_owner LIMIT 1)
        FROM owners WHERE owners.owner IS NOT NULL
    )
    SELECT owner FROM owners WHERE owner IS NOT NULL
""",
    "claims.PROMOTE": """
UPDATE llm_jobs SET state=CASE WHEN (llm_jobs.pending > 0) THEN 'waiting_children' ELSE 'waiting' END, run_at=NULL, updated_at=:now, changed_by=:actor, reason='due' WHERE llm_jobs.id IN (SELECT llm_jobs.id
FROM llm_jobs
WHERE llm_jobs.state = 'delayed' AND llm_jobs.run_at <= :now ORDER BY llm_jobs.run_at
 LIMIT :limit + 0 OFFSET 0)
""",
    "claims.RENEW": """
UPDATE llm_jobs SET lease_until=:until WHERE llm_jobs.state = 'active' AND llm_jobs.lease_owner = :owner
""",
    "claims.SPREAD_END": """
WITH RECURSIVE spread(lane, quota, shared, part) AS (
        SELECT wanted.key, json_extract(wanted.value, '$[0]'), json_extract(wanted.value, '$[1]'), (
            SELECT lane FROM llm_jobs
            WHERE state = 'waiting' AND lane >= wanted.key || '|' || :start AND lane < wanted.key || '}' ORDER BY lane LIMIT 1
        )
        FROM json_each(:quotas) AS wanted
        WHERE NOT EXISTS (SELECT 1 FROM llm_queues WHERE name = substr(wanted.key, 1, instr(wanted.key, '|') - 1) AND paused_at IS NOT NULL)
        UNION ALL
        SELECT spread.lane, quota, shared,
            (SELECT lane FROM llm_jobs WHERE state = 'waiting' AND lane > spread.part AND lane < spread.lane || '}' ORDER BY lane LIMIT 1)
        FROM spread WHERE spread.part IS NOT NULL
        LIMIT :parts + 0
    )
    SELECT min(substr(last, length(lane) + 2)) FROM (SELECT lane, max(part) AS last FROM spread GROUP BY lane HAVING count(*) = count(part))
""",
    "claims.SUSPECTS": """
SELECT 1 FROM llm_jobs AS mine
    WHERE mine.state = 'waiting' AND mine.losses > 0 AND mine.losses >= :suspect_after
        AND (mine.group_limit IS NULL OR mine.group_limit > (SELECT count(*) FROM llm_jobs AS other WHERE other.state = 'active' AND other.group_key = mine.group_key))
        AND NOT EXISTS (SELECT 1 FROM llm_queues WHERE name = mine.queue AND paused_at IS NOT NULL) AND (mine.held_until IS NULL OR mine.held_until <= :now) AND mine.queue || '|' || mine.type || '|' || coalesce(mine.model, '') || '|' || coalesce(mine.requires, '') IN (SELECT value FROM json_each(:lanes)) LIMIT 1
""",
    "conversations.APPEND": """
INSERT INTO llm_messages (conversation_id, parent_id, turn, role, content, tokens, job_id, at) VALUES (:conversation_id, :parent_id, :turn, :role, :content, :tokens, :job_id, :at) RETURNING id
""",
    "conversations.BY_NAME": """
SELECT llm_conversations.id, llm_conversations.name, llm_conversations.head_id, llm_conversations.settings, llm_conversations.created_at
FROM llm_conversations
WHERE llm_conversations.name = :wanted
""",
    "conversations.CREATE": """
INSERT INTO llm_conversations (name, head_id, settings, created_at) VALUES (:name, :head_id, :settings, :created_at) ON CONFLICT (name) DO NOTHING RETURNING id
""",
    "conversations.HEAD": """
SELECT c.head_id, coalesce(head.turn, 0) FROM llm_conversations AS c LEFT JOIN llm_messages AS head ON head.id = c.head_id
    WHERE c.id = :wanted
""",
    "conversations.HISTORY": """
WITH RECURSIVE chain(id, parent_id, turn, role, content, tokens, job_id, at, cut, size) AS (
        SELECT m.id, m.parent_id, m.turn, m.role, m.content, m.tokens, m.job_id, m.at, CASE WHEN m.role = 'trim' OR m.role = 'summary' THEN json_extract(m.content, '$.covers[1]') ELSE 0 END, coalesce(m.tokens, length(m.content) / 3)
        FROM llm_conversations AS c JOIN llm_messages AS m ON m.id = c.head_id WHERE c.id = :wanted
        UNION ALL
        SELECT m.id, m.parent_id, m.turn, m.role, m.content, m.tokens, m.job_id, m.at, max(chain.cut, CASE WHEN m.role = 'trim' OR m.role = 'summary' THEN json_extract(m.content, '$.covers[1]') ELSE 0 END), chain.size + coalesce(m.tokens, length(m.content) / 3)
        FROM chain CROSS JOIN llm_messages AS m ON m.id = chain.parent_id
        WHERE chain.parent_id > chain.cut AND chain.size <= :budget
    )
    SELECT id, parent_id, turn, role, content, tokens, job_id, at FROM chain ORDER BY id
""",
    "conversations.LIST": """
SELECT c.id, c.name, coalesce(head.turn, 0),
           (SELECT count(*) FROM llm_jobs WHERE conversation_id = c.id AND conversation_id IS NOT NULL
            AND (state = 'active' OR state = 'delayed' OR state = 'waiting' OR state = 'waiting_children')),
           c.created_at, coalesce(head.at, c.created_at)
    FROM llm_conversations AS c LEFT JOIN llm_messages AS head ON head.id = c.head_id
    WHERE c.id < :before ORDER BY c.id DESC LIMIT :limit + 0
""",
    "conversations.LOG": """
WITH RECURSIVE chain(id, parent_id, turn, role, content, tokens, job_id, at) AS (
        SELECT m.id, m.parent_id, m.turn, m.role, m.content, m.tokens, m.job_id, m.at
        FROM llm_conversations AS c JOIN llm_messages AS m ON m.id = c.head_id WHERE c.id = :wanted
        UNION ALL
        SELECT m.id, m.parent_id, m.turn, m.role, m.content, m.tokens, m.job_id, m.at
        FROM chain CROSS JOIN llm_messages AS m ON m.id = chain.parent_id
    )
    SELECT id, parent_id, turn, role, content, tokens, job_id, at FROM chain ORDER BY id
""",
    "conversations.MESSAGE": """
SELECT llm_messages.id, llm_messages.parent_id, llm_messages.turn, llm_messages.role, llm_messages.content, llm_messages.tokens, llm_messages.job_id, llm_messages.at
FROM llm_messages
WHERE llm_messages.id = :wanted
""",
    "conversations.MOVE_HEAD": """
UPDATE llm_conversations SET head_id=:new_head WHERE llm_conversations.id = :wanted
""",
    "conversations.SET_SETTINGS": """
UPDATE llm_conversations SET settings=:settings WHERE llm_conversations.id = :wanted
""",
    "conversations.SUMMARISE": """
INSERT INTO llm_jobs (type, key, queue, model, priority, tag, parent_id, root_id, changed_by, created_at, updated_at)
    SELECT 'chat', :summary_key, queue, model, priority, tag, id, coalesce(root_id, id), :actor, :now, :now FROM llm_jobs WHERE id = :job_id
    ON CONFLICT (key) WHERE key IS NOT NULL DO NOTHING
    RETURNING id
""",
    "conversations.SUMMARY_DATA": """
INSERT INTO llm_job_data (job_id, description, data) VALUES (:job_id, :description, :data)
""",
    "conversations.TURNS": """
SELECT job.id, c.id, c.name, c.settings FROM json_each(:ids) AS claimed
    CROSS JOIN llm_jobs AS job ON job.id = claimed.value
    CROSS JOIN llm_conversations AS c ON c.id = job.conversation_id
""",
    "costs.BY_ALL": """
SELECT name, sum(calls), coalesce(sum(input_uncached), 0), coalesce(sum(cache_read), 0), coalesce(sum(cache_write), 0), coalesce(sum(output_visible), 0), coalesce(sum(output_reasoning), 0), coalesce(sum(cache_write_1h), 0), sum(cost), sum(unpriced), sum(reserved), sum(unknown), sum(unknown_cost), sum(saved) FROM (
        SELECT 'all' AS name, count(*) AS calls, sum(input_uncached) AS input_uncached, sum(cache_read) AS cache_read, sum(cache_write) AS cache_write, sum(output_visible) AS output_visible, sum(output_reasoning) AS output_reasoning, sum(cache_write_1h) AS cache_write_1h, sum(cost) AS cost, sum(cost IS NULL AND c.state IN ('completed', 'superseded')) AS unpriced,
    sum(CASE WHEN c.state = 'open' THEN reserved_cost END) AS reserved, sum(c.state = 'unknown') AS unknown,
    sum(CASE WHEN c.state = 'unknown' THEN reserved_cost END) AS unknown_cost, sum(saved) AS saved FROM llm_calls AS c JOIN llm_jobs AS j ON j.id = c.job_id
        WHERE c.sent_at >= :since AND c.sent_at < :before AND (:tag IS NULL OR j.tag = :tag) GROUP BY 1
        UNION ALL
        SELECT 'all', sum(calls) AS calls, sum(input_uncached) AS input_uncached, sum(cache_read) AS cache_read, sum(cache_write) AS cache_write, sum(output_visible) AS output_visible, sum(output_reasoning) AS output_reasoning, sum(cache_write_1h) AS cache_write_1h, sum(cost) AS cost, sum(unpriced) AS unpriced, NULL AS reserved, 0 AS unknown, NULL AS unknown_cost, NULL AS saved FROM llm_usage_deleted
        WHERE day >= :since / 86400000 AND day <= (:before - 1) / 86400000 AND (:tag IS NULL OR tag = :tag) GROUP BY 1
    ) GROUP BY name ORDER BY coalesce(sum(cost), -1) DESC, sum(calls) DESC, name LIMIT :limit + 0
""",
    "costs.BY_DAY": """
SELECT name, sum(calls), coalesce(sum(input_uncached), 0), coalesce(sum(cache_read), 0), coalesce(sum(cache_write), 0), coalesce(sum(output_visible), 0), coalesce(sum(output_reasoning), 0), coalesce(sum(cache_write_1h), 0), sum(cost), sum(unpriced), sum(reserved), sum(unknown), sum(unknown_cost), sum(saved) FROM (
        SELECT strftime('%Y-%m-%d', c.sent_at / 1000, 'unixepoch') AS name, count(*) AS calls, sum(input_uncached) AS input_uncached, sum(cache_read) AS cache_read, sum(cache_write) AS cache_write, sum(output_visible) AS output_visible, sum(output_reasoning) AS output_reasoning, sum(cache_write_1h) AS cache_write_1h, sum(cost) AS cost, sum(cost IS NULL AND c.state IN ('completed', 'superseded')) AS unpriced,
    sum(CASE WHEN c.state = 'open' THEN reserved_cost END) AS reserved, sum(c.state = 'unknown') AS unknown,
    sum(CASE WHEN c.state = 'unknown' THEN reserved_cost END) AS unknown_cost, sum(saved) AS saved FROM llm_calls AS c JOIN llm_jobs AS j ON j.id = c.job_id
        WHERE c.sent_at >= :since AND c.sent_at < :before AND (:tag IS NULL OR j.tag = :tag) GROUP BY 1
        UNION ALL
        SELECT strftime('%Y-%m-%d', day * 86400, 'unixepoch'), sum(calls) AS calls, sum(input_uncached) AS input_uncached, sum(cache_read) AS cache_read, sum(cache_write) AS cache_write, sum(output_visible) AS output_visible, sum(output_reasoning) AS output_reasoning, sum(cache_write_1h) AS cache_write_1h, sum(cost) AS cost, sum(unpriced) AS unpriced, NULL AS reserved, 0 AS unknown, NULL AS unknown_cost, NULL AS saved FROM llm_usage_deleted
        WHERE day >= :since / 86400000 AND day <= (:before - 1) / 86400000 AND (:tag IS NULL OR tag = :tag) GROUP BY 1
    ) GROUP BY name ORDER BY coalesce(sum(cost), -1) DESC, sum(calls) DESC, name LIMIT :limit + 0
""",
    "costs.BY_JOB": """
SELECT name, sum(calls), coalesce(sum(input_uncached), 0), coalesce(sum(cache_read), 0), coalesce(sum(cache_write), 0), coalesce(sum(output_visible), 0), coalesce(sum(output_reasoning), 0), coalesce(sum(cache_write_1h), 0), sum(cost), sum(unpriced), sum(reserved), sum(unknown), sum(unknown_cost), sum(saved) FROM (
        SELECT CAST(c.job_id AS TEXT) AS name, count(*) AS calls, sum(input_uncached) AS input_uncached, sum(cache_read) AS cache_read, sum(cache_write) AS cache_write, sum(output_visible) AS output_visible, sum(output_reasoning) AS output_reasoning, sum(cache_write_1h) AS cache_write_1h, sum(cost) AS cost, sum(cost IS NULL AND c.state IN ('completed', 'superseded')) AS unpriced,
    sum(CASE WHEN c.state = 'open' THEN reserved_cost END) AS reserved, sum(c.state = 'unknown') AS unknown,
    sum(CASE WHEN c.state = 'unknown' THEN reserved_cost END) AS unknown_cost, sum(saved) AS saved FROM llm_calls AS c JOIN llm_jobs AS j ON j.id = c.job_id
        WHERE c.sent_at >= :since AND c.sent_at < :before AND (:tag IS NULL OR j.tag = :tag) GROUP BY 1
        UNION ALL
        SELECT '(deleted jobs)', sum(calls) AS calls, sum(input_uncached) AS input_uncached, sum(cache_read) AS cache_read, sum(cache_write) AS cache_write, sum(output_visible) AS output_visible, sum(output_reasoning) AS output_reasoning, sum(cache_write_1h) AS cache_write_1h, sum(cost) AS cost, sum(unpriced) AS unpriced, NULL AS reserved, 0 AS unknown, NULL AS unknown_cost, NULL AS saved FROM llm_usage_deleted
        WHERE day >= :since / 86400000 AND day <= (:before - 1) / 86400000 AND (:tag IS NULL OR tag = :tag) GROUP BY 1
    ) GROUP BY name ORDER BY coalesce(sum(cost), -1) DESC, sum(calls) DESC, name LIMIT :limit + 0
""",
    "costs.BY_MODEL": """
SELECT name, sum(calls), coalesce(sum(input_uncached), 0), coalesce(sum(cache_read), 0), coalesce(sum(cache_write), 0), coalesce(sum(output_visible), 0), coalesce(sum(output_reasoning), 0), coalesce(sum(cache_write_1h), 0), sum(cost), sum(unpriced), sum(reserved), sum(unknown), sum(unknown_cost), sum(saved) FROM (
        SELECT c.provider || ':' || c.model AS name, count(*) AS calls, sum(input_uncached) AS input_uncached, sum(cache_read) AS cache_read, sum(cache_write) AS cache_write, sum(output_visible) AS output_visible, sum(output_reasoning) AS output_reasoning, sum(cache_write_1h) AS cache_write_1h, sum(cost) AS cost, sum(cost IS NULL AND c.state IN ('completed', 'superseded')) AS unpriced,
    sum(CASE WHEN c.state = 'open' THEN reserved_cost END) AS reserved, sum(c.state = 'unknown') AS unknown,
    sum(CASE WHEN c.state = 'unknown' THEN reserved_cost END) AS unknown_cost, sum(saved) AS saved FROM llm_calls AS c JOIN llm_jobs AS j ON j.id = c.job_id
        WHERE c.sent_at >= :since AND c.sent_at < :before AND (:tag IS NULL OR j.tag = :tag) GROUP BY 1
        UNION ALL
        SELECT CASE WHEN provider = '' THEN '(deleted jobs)' ELSE provider || ':' || model END, sum(calls) AS calls, sum(input_uncached) AS input_uncached, sum(cache_read) AS cache_read, sum(cache_write) AS cache_write, sum(output_visible) AS output_visible, sum(output_reasoning) AS output_reasoning, sum(cache_write_1h) AS cache_write_1h, sum(cost) AS cost, sum(unpriced) AS unpriced, NULL AS reserved, 0 AS unknown, NULL AS unknown_cost, NULL AS saved FROM llm_usage_deleted
        WHERE day >= :since / 86400000 AND day <= (:before - 1) / 86400000 AND (:tag IS NULL OR tag = :tag) GROUP BY 1
    ) GROUP BY name ORDER BY coalesce(sum(cost), -1) DESC, sum(calls) DESC, name LIMIT :limit + 0
""",
    "costs.BY_PROVIDER": """
SELECT name, sum(calls), coalesce(sum(input_uncached), 0), coalesce(sum(cache_read), 0), coalesce(sum(cache_write), 0), coalesce(sum(output_visible), 0), coalesce(sum(output_reasoning), 0), coalesce(sum(cache_write_1h), 0), sum(cost), sum(unpriced), sum(reserved), sum(unknown), sum(unknown_cost), sum(saved) FROM (
        SELECT c.provider AS name, count(*) AS calls, sum(input_uncached) AS input_uncached, sum(cache_read) AS cache_read, sum(cache_write) AS cache_write, sum(output_visible) AS output_visible, sum(output_reasoning) AS output_reasoning, sum(cache_write_1h) AS cache_write_1h, sum(cost) AS cost, sum(cost IS NULL AND c.state IN ('completed', 'superseded')) AS unpriced,
    sum(CASE WHEN c.state = 'open' THEN reserved_cost END) AS reserved, sum(c.state = 'unknown') AS unknown,
    sum(CASE WHEN c.state = 'unknown' THEN reserved_cost END) AS unknown_cost, sum(saved) AS saved FROM llm_calls AS c JOIN llm_jobs AS j ON j.id = c.job_id
        WHERE c.sent_at >= :since AND c.sent_at < :before AND (:tag IS NULL OR j.tag = :tag) GROUP BY 1
        UNION ALL
        SELECT CASE WHEN provider = '' THEN '(deleted jobs)' ELSE provider END, sum(calls) AS calls, sum(input_uncached) AS input_uncached, sum(cache_read) AS cache_read, sum(cache_write) AS cache_write, sum(output_visible) AS output_visible, sum(output_reasoning) AS output_reasoning, sum(cache_write_1h) AS cache_write_1h, sum(cost) AS cost, sum(unpriced) AS unpriced, NULL AS reserved, 0 AS unknown, NULL AS unknown_cost, NULL AS saved FROM llm_usage_deleted
        WHERE day >= :since / 86400000 AND day <= (:before - 1) / 86400000 AND (:tag IS NULL OR tag = :tag) GROUP BY 1
    ) GROUP BY name ORDER BY coalesce(sum(cost), -1) DESC, sum(calls) DESC, name LIMIT :limit + 0
""",
    "costs.BY_QUEUE": """
SELECT name, sum(calls), coalesce(sum(input_uncached), 0), coalesce(sum(cache_read), 0), coalesce(sum(cache_write), 0), coalesce(sum(output_visible), 0), coalesce(sum(output_reasoning), 0), coalesce(sum(cache_write_1h), 0), sum(cost), sum(unpriced), sum(reserved), sum(unknown), sum(unknown_cost), sum(saved) FROM (
        SELECT j.queue AS name, count(*) AS calls, sum(input_uncached) AS input_uncached, sum(cache_read) AS cache_read, sum(cache_write) AS cache_write, sum(output_visible) AS output_visible, sum(output_reasoning) AS output_reasoning, sum(cache_write_1h) AS cache_write_1h, sum(cost) AS cost, sum(cost IS NULL AND c.state IN ('completed', 'superseded')) AS unpriced,
    sum(CASE WHEN c.state = 'open' THEN reserved_cost END) AS reserved, sum(c.state = 'unknown') AS unknown,
    sum(CASE WHEN c.state = 'unknown' THEN reserved_cost END) AS unknown_cost, sum(saved) AS saved FROM llm_calls AS c JOIN llm_jobs AS j ON j.id = c.job_id
        WHERE c.sent_at >= :since AND c.sent_at < :before AND (:tag IS NULL OR j.tag = :tag) GROUP BY 1
        UNION ALL
        SELECT '(deleted jobs)', sum(calls) AS calls, sum(input_uncached) AS input_uncached, sum(cache_read) AS cache_read, sum(cache_write) AS cache_write, sum(output_visible) AS output_visible, sum(output_reasoning) AS output_reasoning, sum(cache_write_1h) AS cache_write_1h, sum(cost) AS cost, sum(unpriced) AS unpriced, NULL AS reserved, 0 AS unknown, NULL AS unknown_cost, NULL AS saved FROM llm_usage_deleted
        WHERE day >= :since / 86400000 AND day <= (:before - 1) / 86400000 AND (:tag IS NULL OR tag = :tag) GROUP BY 1
    ) GROUP BY name ORDER BY coalesce(sum(cost), -1) DESC, sum(calls) DESC, name LIMIT :limit + 0
""",
    "costs.BY_TAG": """
SELECT name, sum(calls), coalesce(sum(input_uncached), 0), coalesce(sum(cache_read), 0), coalesce(sum(cache_write), 0), coalesce(sum(output_visible), 0), coalesce(sum(output_reasoning), 0), coalesce(sum(cache_write_1h), 0), sum(cost), sum(unpriced), sum(reserved), sum(unknown), sum(unknown_cost), sum(saved) FROM (
        SELECT coalesce(j.tag, '') AS name, count(*) AS calls, sum(input_uncached) AS input_uncached, sum(cache_read) AS cache_read, sum(cache_write) AS cache_write, sum(output_visible) AS output_visible, sum(output_reasoning) AS output_reasoning, sum(cache_write_1h) AS cache_write_1h, sum(cost) AS cost, sum(cost IS NULL AND c.state IN ('completed', 'superseded')) AS unpriced,
    sum(CASE WHEN c.state = 'open' THEN reserved_cost END) AS reserved, sum(c.state = 'unknown') AS unknown,
    sum(CASE WHEN c.state = 'unknown' THEN reserved_cost END) AS unknown_cost, sum(saved) AS saved FROM llm_calls AS c JOIN llm_jobs AS j ON j.id = c.job_id
        WHERE c.sent_at >= :since AND c.sent_at < :before AND (:tag IS NULL OR j.tag = :tag) GROUP BY 1
        UNION ALL
        SELECT tag, sum(calls) AS calls, sum(input_uncached) AS input_uncached, sum(cache_read) AS cache_read, sum(cache_write) AS cache_write, sum(output_visible) AS output_visible, sum(output_reasoning) AS output_reasoning, sum(cache_write_1h) AS cache_write_1h, sum(cost) AS cost, sum(unpriced) AS unpriced, NULL AS reserved, 0 AS unknown, NULL AS unknown_cost, NULL AS saved FROM llm_usage_deleted
        WHERE day >= :since / 86400000 AND day <= (:before - 1) / 86400000 AND (:tag IS NULL OR tag = :tag) GROUP BY 1
    ) GROUP BY name ORDER BY coalesce(sum(cost), -1) DESC, sum(calls) DESC, name LIMIT :limit + 0
""",
    "costs.BY_TREE": """
SELECT name, sum(calls), coalesce(sum(input_uncached), 0), coalesce(sum(cache_read), 0), coalesce(sum(cache_write), 0), coalesce(sum(output_visible), 0), coalesce(sum(output_reasoning), 0), coalesce(sum(cache_write_1h), 0), sum(cost), sum(unpriced), sum(reserved), sum(unknown), sum(unknown_cost), sum(saved) FROM (
        SELECT CAST(coalesce(j.root_id, j.id) AS TEXT) AS name, count(*) AS calls, sum(input_uncached) AS input_uncached, sum(cache_read) AS cache_read, sum(cache_write) AS cache_write, sum(output_visible) AS output_visible, sum(output_reasoning) AS output_reasoning, sum(cache_write_1h) AS cache_write_1h, sum(cost) AS cost, sum(cost IS NULL AND c.state IN ('completed', 'superseded')) AS unpriced,
    sum(CASE WHEN c.state = 'open' THEN reserved_cost END) AS reserved, sum(c.state = 'unknown') AS unknown,
    sum(CASE WHEN c.state = 'unknown' THEN reserved_cost END) AS unknown_cost, sum(saved) AS saved FROM llm_calls AS c JOIN llm_jobs AS j ON j.id = c.job_id
        WHERE c.sent_at >= :since AND c.sent_at < :before AND (:tag IS NULL OR j.tag = :tag) GROUP BY 1
        UNION ALL
        SELECT '(deleted jobs)', sum(calls) AS calls, sum(input_uncached) AS input_uncached, sum(cache_read) AS cache_read, sum(cache_write) AS cache_write, sum(output_visible) AS output_visible, sum(output_reasoning) AS output_reasoning, sum(cache_write_1h) AS cache_write_1h, sum(cost) AS cost, sum(unpriced) AS unpriced, NULL AS reserved, 0 AS unknown, NULL AS unknown_cost, NULL AS saved FROM llm_usage_deleted
        WHERE day >= :since / 86400000 AND day <= (:before - 1) / 86400000 AND (:tag IS NULL OR tag = :tag) GROUP BY 1
    ) GROUP BY name ORDER BY coalesce(sum(cost), -1) DESC, sum(calls) DESC, name LIMIT :limit + 0
""",
    "costs.BY_TYPE": """
SELECT name, sum(calls), coalesce(sum(input_uncached), 0), coalesce(sum(cache_read), 0), coalesce(sum(cache_write), 0), coalesce(sum(output_visible), 0), coalesce(sum(output_reasoning), 0), coalesce(sum(cache_write_1h), 0), sum(cost), sum(unpriced), sum(reserved), sum(unknown), sum(unknown_cost), sum(saved) FROM (
        SELECT j.type AS name, count(*) AS calls, sum(input_uncached) AS input_uncached, sum(cache_read) AS cache_read, sum(cache_write) AS cache_write, sum(output_visible) AS output_visible, sum(output_reasoning) AS output_reasoning, sum(cache_write_1h) AS cache_write_1h, sum(cost) AS cost, sum(cost IS NULL AND c.state IN ('completed', 'superseded')) AS unpriced,
    sum(CASE WHEN c.state = 'open' THEN reserved_cost END) AS reserved, sum(c.state = 'unknown') AS unknown,
    sum(CASE WHEN c.state = 'unknown' THEN reserved_cost END) AS unknown_cost, sum(saved) AS saved FROM llm_calls AS c JOIN llm_jobs AS j ON j.id = c.job_id
        WHERE c.sent_at >= :since AND c.sent_at < :before AND (:tag IS NULL OR j.tag = :tag) GROUP BY 1
        UNION ALL
        SELECT '(deleted jobs)', sum(calls) AS calls, sum(input_uncached) AS input_uncached, sum(cache_read) AS cache_read, sum(cache_write) AS cache_write, sum(output_visible) AS output_visible, sum(output_reasoning) AS output_reasoning, sum(cache_write_1h) AS cache_write_1h, sum(cost) AS cost, sum(unpriced) AS unpriced, NULL AS reserved, 0 AS unknown, NULL AS unknown_cost, NULL AS saved FROM llm_usage_deleted
        WHERE day >= :since / 86400000 AND day <= (:before - 1) / 86400000 AND (:tag IS NULL OR tag = :tag) GROUP BY 1
    ) GROUP BY name ORDER BY coalesce(sum(cost), -1) DESC, sum(calls) DESC, name LIMIT :limit + 0
""",
    "costs.OF_TREE": """
WITH RECURSIVE tree(id) AS (
        SELECT :wanted UNION ALL SELECT child.id FROM tree CROSS JOIN llm_jobs AS child ON child.parent_id = tree.id
    )
    SELECT count(DISTINCT tree.id), count(c.id), sum(c.cost), sum(c.cost IS NULL AND c.state IN ('completed', 'superseded')),
        sum(CASE WHEN c.state = 'open' THEN c.reserved_cost END), sum(CASE WHEN c.state = 'unknown' THEN c.reserved_cost END)
    FROM tree LEFT JOIN llm_calls AS c ON c.job_id = tree.id
""",
    "events.ENDED": """
SELECT wanted.value
FROM json_each(:ids) AS wanted LEFT OUTER JOIN llm_jobs ON llm_jobs.id = wanted.value
WHERE llm_jobs.id IS NULL OR llm_jobs.state IN ('cancelled', 'completed', 'failed')
""",
    "events.NEWEST": """
SELECT coalesce(max(llm_job_transitions.id), 0) AS coalesce_1
FROM llm_job_transitions
""",
    "events.PAGE": """
SELECT llm_job_transitions.id, llm_job_transitions.job_id, llm_jobs.type, llm_job_transitions.from_state, llm_job_transitions.to_state, llm_job_transitions.at, llm_job_transitions.epoch, llm_job_transitions.attempt, llm_job_transitions.actor, llm_job_transitions.reason
FROM llm_job_transitions JOIN llm_jobs ON llm_jobs.id = llm_job_transitions.job_id
WHERE llm_job_transitions.id > :after ORDER BY llm_job_transitions.id
 LIMIT :page + 0 OFFSET 0
""",
    "events.PAGE_OF_JOB": """
SELECT llm_job_transitions.id, llm_job_transitions.job_id, llm_jobs.type, llm_job_transitions.from_state, llm_job_transitions.to_state, llm_job_transitions.at, llm_job_transitions.epoch, llm_job_transitions.attempt, llm_job_transitions.actor, llm_job_transitions.reason
FROM llm_job_transitions JOIN llm_jobs ON llm_jobs.id = llm_job_transitions.job_id
WHERE llm_job_transitions.id > :after AND llm_job_transitions.job_id = :wanted ORDER BY llm_job_transitions.id
 LIMIT :page + 0 OFFSET 0
""",
    "flows.BELOW": """
SELECT child.parent_id, child.id, child.state FROM json_each(:ids) AS above CROSS JOIN llm_jobs AS child ON child.parent_id = above.value
    ORDER BY child.id
""",
    "flows.CHILDREN": """
SELECT llm_jobs.id, llm_jobs."key", llm_jobs.type, llm_jobs.queue, llm_jobs.model, llm_jobs.tag, llm_jobs.state, llm_jobs.parent_id, llm_jobs.pending, llm_jobs.quorum, llm_jobs.priority, llm_jobs.boost, llm_jobs.requires, llm_jobs.group_key, llm_jobs.group_limit, llm_jobs.run_at, llm_jobs.start_by, llm_jobs.lease_epoch, llm_jobs.attempt, llm_jobs.max_attempts, llm_jobs.failures, llm_jobs.losses, llm_jobs.deferrals, llm_jobs.held_by, llm_jobs.held_until, llm_jobs.progress, llm_jobs.progress_message, llm_jobs.created_at, llm_jobs.updated_at, llm_jobs.started_at, llm_jobs.finished_at, llm_jobs.reason
FROM llm_jobs
WHERE llm_jobs.parent_id = :wanted ORDER BY llm_jobs.id
""",
    "flows.DEPENDENCIES": """
SELECT llm_jobs.id, llm_jobs."key", llm_jobs.type, llm_jobs.queue, llm_jobs.model, llm_jobs.tag, llm_jobs.state, llm_jobs.parent_id, llm_jobs.pending, llm_jobs.quorum, llm_jobs.priority, llm_jobs.boost, llm_jobs.requires, llm_jobs.group_key, llm_jobs.group_limit, llm_jobs.run_at, llm_jobs.start_by, llm_jobs.lease_epoch, llm_jobs.attempt, llm_jobs.max_attempts, llm_jobs.failures, llm_jobs.losses, llm_jobs.deferrals, llm_jobs.held_by, llm_jobs.held_until, llm_jobs.progress, llm_jobs.progress_message, llm_jobs.created_at, llm_jobs.updated_at, llm_jobs.started_at, llm_jobs.finished_at, llm_jobs.reason
FROM llm_jobs JOIN llm_job_edges ON llm_job_edges.depends_on = llm_jobs.id
WHERE llm_job_edges.job_id = :wanted ORDER BY llm_job_edges.place, llm_job_edges.depends_on
""",
    "flows.DEPENDENTS": """
SELECT llm_jobs.id, llm_jobs."key", llm_jobs.type, llm_jobs.queue, llm_jobs.model, llm_jobs.tag, llm_jobs.state, llm_jobs.parent_id, llm_jobs.pending, llm_jobs.quorum, llm_jobs.priority, llm_jobs.boost, llm_jobs.requires, llm_jobs.group_key, llm_jobs.group_limit, llm_jobs.run_at, llm_jobs.start_by, llm_jobs.lease_epoch, llm_jobs.attempt, llm_jobs.max_attempts, llm_jobs.failures, llm_jobs.losses, llm_jobs.deferrals, llm_jobs.held_by, llm_jobs.held_until, llm_jobs.progress, llm_jobs.progress_message, llm_jobs.created_at, llm_jobs.updated_at, llm_jobs.started_at, llm_jobs.finished_at, llm_jobs.reason
FROM llm_jobs JOIN llm_job_edges ON llm_job_edges.job_id = llm_jobs.id
WHERE llm_job_edges.depends_on = :wanted ORDER BY llm_jobs.id
""",
    "flows.EDGE": """
INSERT INTO llm_job_edges (job_id, depends_on, step, name, place, policy) VALUES (:job_id, :depends_on, :step, :name, :place, :policy)
""",
    "flows.EDGE_COUNTS": """
SELECT step, state, count(*) FROM llm_job_edges WHERE job_id = :wanted GROUP BY step, state
""",
    "flows.ENROL": """
UPDATE llm_jobs SET parent_id=:parent, pending=(llm_jobs.pending + :open), quorum=:needed, changed_by=:actor, root_id=(SELECT coalesce(above.root_id, above.id) AS coalesce_1
FROM llm_jobs AS above
WHERE above.id = :parent) WHERE llm_jobs.id = :new_id
""",
    "flows.FAILED_NEEDS": """
SELECT edge.depends_on, edge.name, target.state FROM llm_job_edges AS edge JOIN llm_jobs AS target ON target.id = edge.depends_on
    WHERE edge.job_id = :waiter AND edge.state = 'failed' ORDER BY edge.place, edge.depends_on LIMIT 3
""",
    "flows.FAIL_WAITER": """
UPDATE llm_jobs SET pending=0, state='failed', run_at=NULL, updated_at=:now, finished_at=:now, changed_by=:actor, reason=:reason WHERE llm_jobs.id = :waiter AND llm_jobs.state IN ('delayed', 'waiting_children')
""",
    "flows.GROUPS": """
SELECT job.id, job.state, job.quorum, job.pending, edge.step, coalesce(sum(edge.state = 'open'), 0),
           coalesce(sum(edge.state = 'met'), 0), count(edge.job_id)
    FROM json_each(:ids) AS waiting
    CROSS JOIN llm_jobs AS job ON job.id = waiting.value
    LEFT JOIN llm_job_edges AS edge ON edge.job_id = job.id
    GROUP BY job.id, edge.step
""",
    "flows.INPUTS": """
SELECT edge.job_id, edge.step, edge.depends_on, edge.name, edge.policy, edge.state, target.state,
           CASE WHEN edge.state = 'met' AND target.state = 'completed' THEN result.result END,
           CASE WHEN edge.state <> 'moot' AND target.state <> 'completed' THEN result.error END,
           target.reason
    FROM json_each(:ids) AS claimed
    CROSS JOIN llm_job_edges AS edge ON edge.job_id = claimed.value
    CROSS JOIN llm_jobs AS target ON target.id = edge.depends_on
    LEFT JOIN llm_job_results AS result ON result.job_id = target.id
    ORDER BY edge.job_id, edge.place, edge.depends_on
""",
    "flows.KNOWN": """
SELECT job.id FROM json_each(:ids) AS wanted CROSS JOIN llm_jobs AS job ON job.id = wanted.value
""",
    "flows.LESS_PENDING": """
UPDATE llm_jobs SET pending=max(0, llm_jobs.pending - :settled) WHERE llm_jobs.id = :waiter RETURNING state, quorum, pending
""",
    "flows.MOOT_ALL": """
UPDATE llm_job_edges SET state='moot' WHERE llm_job_edges.job_id = :waiter AND llm_job_edges.state = 'open'
""",
    "flows.MOOT_STEP": """
UPDATE llm_job_edges SET state='moot' WHERE llm_job_edges.job_id = :waiter AND llm_job_edges.state = 'open' AND llm_job_edges.step = :of_step
""",
    "flows.NEEDS_OF": """
SELECT edge.job_id, edge.depends_on, edge.step, edge.name, edge.policy, edge.state, target.state
    FROM json_each(:ids) AS waiting CROSS JOIN llm_job_edges AS edge ON edge.job_id = waiting.value
    CROSS JOIN llm_jobs AS target ON target.id = edge.depends_on
    ORDER BY edge.job_id, edge.place, edge.depends_on
""",
    "flows.OPEN_COUNT": """
SELECT count(*) AS count_1
FROM llm_job_edges
WHERE llm_job_edges.job_id = :waiter AND llm_job_edges.state = 'open'
""",
    "flows.OPEN_OF": """
SELECT edge.job_id, edge.depends_on, edge.step, edge.policy, edge.name, target.state
    FROM json_each(:ids) AS waiting
    CROSS JOIN llm_job_edges AS edge ON edge.job_id = waiting.value AND edge.state = 'open'
    CROSS JOIN llm_jobs AS target ON target.id = edge.depends_on AND (target.state = 'cancelled' OR target.state = 'completed' OR target.state = 'failed')
""",
    "flows.OPEN_ON": """
SELECT edge.job_id, edge.depends_on, edge.step, edge.policy, edge.name, target.state
    FROM json_each(:ids) AS ended
    CROSS JOIN llm_jobs AS target ON target.id = ended.value AND (target.state = 'cancelled' OR target.state = 'completed' OR target.state = 'failed')
    CROSS JOIN llm_job_edges AS edge ON edge.depends_on = target.id AND edge.state = 'open'
    LIMIT :limit + 0
""",
    "flows.PARENT": """
SELECT queue, model, priority, tag FROM llm_jobs WHERE id = :job_id AND lease_epoch = :epoch AND state = 'active'
""",
    "flows.PARKED": """
SELECT max(id), count(*) FROM (SELECT id FROM llm_jobs WHERE state = 'waiting_children' AND id > :after ORDER BY id LIMIT :limit + 0)
""",
    "flows.PARKED_WRONG": """
SELECT id FROM (
        SELECT id, pending FROM llm_jobs WHERE state = 'waiting_children' AND id > :after ORDER BY id LIMIT :limit + 0
    ) AS parked
    WHERE pending = 0 OR pending <> (SELECT count(*) FROM llm_job_edges WHERE job_id = parked.id AND state = 'open')
       OR EXISTS (
           SELECT 1 FROM llm_job_edges AS edge CROSS JOIN llm_jobs AS target ON target.id = edge.depends_on AND (target.state = 'cancelled' OR target.state = 'completed' OR target.state = 'failed')
           WHERE edge.job_id = parked.id AND edge.state = 'open'
       )
""",
    "flows.READY": """
UPDATE llm_jobs SET pending=0, state='waiting', start_by=CASE WHEN (llm_jobs.start_by IS NOT NULL) THEN (llm_jobs.start_by - llm_jobs.created_at) + :now END, updated_at=:now, changed_by=:actor, reason='what it waited on is done' WHERE llm_jobs.id = :waiter AND llm_jobs.state = 'waiting_children'
""",
    "flows.REOPEN": """
UPDATE llm_job_edges SET state = CASE
        WHEN step = '@turn' OR EXISTS (SELECT 1 FROM llm_jobs AS target WHERE target.id = llm_job_edges.depends_on AND (target.state = 'cancelled' OR target.state = 'completed' OR target.state = 'failed')) THEN 'met' ELSE 'open' END
    WHERE job_id = :waiter AND (state = 'failed' OR state = 'moot')
""",
    "flows.ROWS": """
SELECT job."id", job."key", job."type", job."queue", job."model", job."tag", job."state", job."parent_id", job."pending", job."quorum", job."priority", job."boost", job."requires", job."group_key", job."group_limit", job."run_at", job."start_by", job."lease_epoch", job."attempt", job."max_attempts", job."failures", job."losses", job."deferrals", job."held_by", job."held_until", job."progress", job."progress_message", job."created_at", job."updated_at", job."started_at", job."finished_at", job."reason" FROM json_each(:ids) AS wanted CROSS JOIN llm_jobs AS job ON job.id = wanted.value
""",
    "flows.SETTLE": """
UPDATE llm_job_edges SET state=:settled WHERE llm_job_edges.job_id = :waiter AND llm_job_edges.depends_on = :target AND llm_job_edges.step = :of_step
""",
    "flows.SET_PENDING": """
UPDATE llm_jobs SET pending=:open WHERE llm_jobs.id = :waiter
""",
    "flows.SPAWN": """
UPDATE llm_jobs SET pending=:children, quorum=:needed, state='waiting_children', start_by=NULL, lease_epoch=(llm_jobs.lease_epoch + 1), lease_owner=NULL, lease_until=NULL, alone=0, updated_at=:now, changed_by=:actor, reason=:reason WHERE llm_jobs.id = :job_id AND llm_jobs.lease_epoch = :epoch AND llm_jobs.state = 'active'
""",
    "flows.WAITERS_OF": """
SELECT edge.depends_on, edge.job_id, waiter.state FROM json_each(:ids) AS target
    CROSS JOIN llm_job_edges AS edge ON edge.depends_on = target.value AND edge.state = 'open'
    CROSS JOIN llm_jobs AS waiter ON waiter.id = edge.job_id
""",
    "flows.WAITS_ON": """
SELECT edge.step, edge.depends_on, edge.name, target.state, target.type FROM llm_job_edges AS edge
    JOIN llm_jobs AS target ON target.id = edge.depends_on
    WHERE edge.job_id = :wanted AND edge.state = 'open' ORDER BY edge.place, edge.depends_on LIMIT :limit + 0
""",
    "flows.WAIT_AGAIN": """
UPDATE llm_jobs SET pending=:open, state='waiting_children', updated_at=:now, changed_by=:actor, reason='what it waits on is live again' WHERE llm_jobs.id = :waiter AND llm_jobs.state IN ('waiting', 'waiting_children')
""",
    "handles.GIVE_UP": """
UPDATE llm_calls SET error = json_remove(error, '$.resumable')
    WHERE id = :call_id AND state = 'unknown' AND handle IS NOT NULL AND error IS NOT NULL
        AND EXISTS (SELECT 1 FROM llm_jobs WHERE id = llm_calls.job_id AND state = 'cancelled')
    RETURNING provider, handle
""",
    "handles.KEEP": """
UPDATE llm_calls SET handle=:kept WHERE llm_calls.id = :call_id
""",
    "handles.KEPT": """
SELECT llm_calls.job_id, llm_calls.step, llm_calls.id, llm_calls.fingerprint, llm_calls.provider, llm_calls.model, llm_calls.handle
FROM llm_calls
WHERE llm_calls.job_id IN (SELECT anon_1.value
FROM json_each(:ids) AS anon_1) AND llm_calls.state = 'unknown' AND llm_calls.handle IS NOT NULL AND (llm_calls.error IS NULL AND llm_calls.error_class IS NULL OR json_extract(llm_calls.error, '$.resumable')) ORDER BY llm_calls.id
""",
    "handles.TAKE_UP": """
UPDATE llm_calls SET state = 'open', epoch = :epoch, origin = 'resumed', finished_at = NULL, error_class = NULL, error = NULL,
        attempt = (SELECT attempt FROM llm_jobs WHERE id = :job_id)
    WHERE id = :call_id AND job_id = :job_id AND state = 'unknown' AND handle IS NOT NULL
        AND EXISTS (SELECT 1 FROM llm_jobs WHERE id = :job_id AND lease_epoch = :epoch AND state = 'active')
    RETURNING id
""",
    "host_store.ADD": """
INSERT INTO llm_jobs ("key", type, queue, model, requires, group_key, group_limit, tag, unique_key, conversation_id, state, priority, run_at, start_by, max_attempts, created_at, updated_at, changed_by) VALUES (:key, :type, :queue, :model, :requires, :group_key, :group_limit, :tag, :unique_key, (SELECT llm_conversations.id
FROM llm_conversations
WHERE llm_conversations.name = :conversation), :state, :priority, :run_at, :start_by, :max_attempts, :created_at, :created_at, :changed_by) RETURNING id
""",
    "host_store.ADD_AS": """
INSERT INTO llm_jobs (id, "key", type, queue, model, requires, group_key, group_limit, tag, unique_key, conversation_id, state, priority, run_at, start_by, max_attempts, created_at, updated_at, changed_by) VALUES (:id, :key, :type, :queue, :model, :requires, :group_key, :group_limit, :tag, :unique_key, (SELECT llm_conversations.id
FROM llm_conversations
WHERE llm_conversations.name = :conversation), :state, :priority, :run_at, :start_by, :max_attempts, :created_at, :created_at, :changed_by)
""",
    "host_store.ADD_DATA": """
INSERT INTO llm_job_data (job_id, description, data, options) VALUES (:job_id, :description, :data, :options)
""",
    "host_store.ADD_ONCE": """
INSERT INTO llm_jobs ("key", type, queue, model, requires, group_key, group_limit, tag, unique_key, conversation_id, state, priority, run_at, start_by, max_attempts, created_at, updated_at, changed_by) VALUES (:key, :type, :queue, :model, :requires, :group_key, :group_limit, :tag, :unique_key, (SELECT llm_conversations.id
FROM llm_conversations
WHERE llm_conversations.name = :conversation), :state, :priority, :run_at, :start_by, :max_attempts, :created_at, :created_at, :changed_by) ON CONFLICT ("key") WHERE key IS NOT NULL DO NOTHING RETURNING id
""",
    "host_store.ALL_CHUNKS": """
SELECT llm_job_chunks.epoch, llm_job_chunks.seq, llm_job_chunks.step, llm_job_chunks.text, llm_job_chunks.at
FROM llm_job_chunks
WHERE llm_job_chunks.job_id = :wanted ORDER BY llm_job_chunks.epoch, llm_job_chunks.seq
""",
    "host_store.BODY": """
SELECT llm_job_data.description, llm_job_data.data, llm_job_data.options
FROM llm_job_data
WHERE llm_job_data.job_id = :job_id
""",
    "host_store.BY_KEY": """
SELECT llm_jobs.id
FROM llm_jobs
WHERE llm_jobs."key" = :wanted
""",
    "host_store.BY_KEYS": """
SELECT llm_jobs."key", llm_jobs.id
FROM llm_jobs
WHERE llm_jobs."key" IS NOT NULL AND llm_jobs."key" IN (SELECT anon_1.value
FROM json_each(:keys) AS anon_1)
""",
    "host_store.CALLS": """
SELECT llm_calls.id, llm_calls.job_id, llm_calls.epoch, llm_calls.attempt, llm_calls.step, llm_calls.fingerprint, llm_calls.provider, llm_calls.model, llm_calls.limit_key, llm_calls.state, llm_calls.reserved_tokens, llm_calls.reserved_cost, llm_calls.sent_at, llm_calls.finished_at, llm_calls.first_token_ms, llm_calls.input_uncached, llm_calls.cache_read, llm_calls.cache_write, llm_calls.output_visible, llm_calls.output_reasoning, llm_calls.cost, llm_calls.finish, llm_calls.request_id, llm_calls.error_class, llm_calls.error, llm_calls.cache_write_1h, llm_calls.origin, llm_calls.price_id
FROM llm_calls
WHERE llm_calls.job_id = :wanted ORDER BY llm_calls.id
""",
    "host_store.CANCEL": """
UPDATE llm_jobs SET pending=0, state='cancelled', run_at=NULL, lease_epoch=(llm_jobs.lease_epoch + CASE WHEN (llm_jobs.state = 'active') THEN 1 ELSE 0 END), lease_owner=NULL, lease_until=NULL, alone=0, held_by=NULL, held_until=NULL, updated_at=:now, finished_at=:now, changed_by='host', reason=:reason WHERE llm_jobs.id = :job_id AND llm_jobs.state IN ('active', 'delayed', 'waiting', 'waiting_children')
""",
    "host_store.CHUNKS": """
SELECT epoch, seq, step, text, at FROM llm_job_chunks
    WHERE job_id = :job_id AND epoch = (SELECT max(epoch) FROM llm_job_chunks WHERE job_id = :job_id)
      AND (epoch > :epoch OR (epoch = :epoch AND seq > :seq))
    ORDER BY seq LIMIT 500
""",
    "host_store.DISMISS": """
UPDATE llm_job_results SET error=json_set(llm_job_results.error, '$.reviewed_at', :now) WHERE llm_job_results.job_id = :wanted AND json_extract(llm_job_results.error, '$.class') = 'unknown_outcome' AND json_extract(llm_job_results.error, '$.reviewed_at') IS NULL AND (EXISTS (SELECT 1
FROM llm_jobs
WHERE llm_jobs.id = llm_job_results.job_id AND llm_jobs.state = 'failed'))
""",
    "host_store.DUPLICATE": """
INSERT INTO llm_jobs (type, queue, model, requires, group_key, group_limit, tag, priority, max_attempts, created_at, updated_at, changed_by, reason) SELECT llm_jobs.type, llm_jobs.queue, llm_jobs.model, llm_jobs.requires, llm_jobs.group_key, llm_jobs.group_limit, llm_jobs.tag, llm_jobs.priority, llm_jobs.max_attempts, :now AS anon_1, :now AS anon_2, 'host', 'a duplicate of job ' || llm_jobs.id AS anon_3
FROM llm_jobs
WHERE llm_jobs.id = :job_id RETURNING id
""",
    "host_store.DUPLICATE_DATA": """
INSERT INTO llm_job_data (job_id, description, data, options) SELECT :job_id AS anon_1, llm_job_data.description, llm_job_data.data, llm_job_data.options
FROM llm_job_data
WHERE llm_job_data.job_id = :wanted
""",
    "host_store.IS_PARKED": """
SELECT llm_jobs.id
FROM llm_jobs JOIN llm_job_results ON llm_job_results.job_id = llm_jobs.id
WHERE llm_jobs.id = :wanted AND llm_jobs.state = 'failed' AND json_extract(llm_job_results.error, '$.class') = 'unknown_outcome' AND json_extract(llm_job_results.error, '$.reviewed_at') IS NULL
""",
    "host_store.JOB_LOG": """
SELECT llm_job_transitions.id, llm_job_transitions.job_id, llm_job_transitions.from_state, llm_job_transitions.to_state, llm_job_transitions.at, llm_job_transitions.epoch, llm_job_transitions.attempt, llm_job_transitions.actor, llm_job_transitions.reason
FROM llm_job_transitions
WHERE llm_job_transitions.job_id = :wanted ORDER BY llm_job_transitions.id
""",
    "host_store.LAST_ID": """
SELECT coalesce((SELECT seq FROM sqlite_sequence WHERE name = 'llm_jobs'), 0)
""",
    "host_store.LEASE": """
SELECT llm_jobs.lease_owner, llm_jobs.lease_until
FROM llm_jobs
WHERE llm_jobs.id = :job_id
""",
    "host_store.PARKED": """
SELECT llm_jobs.id, llm_jobs."key", llm_jobs.type, llm_jobs.queue, llm_jobs.model, llm_jobs.tag, llm_jobs.state, llm_jobs.parent_id, llm_jobs.pending, llm_jobs.quorum, llm_jobs.priority, llm_jobs.boost, llm_jobs.requires, llm_jobs.group_key, llm_jobs.group_limit, llm_jobs.run_at, llm_jobs.start_by, llm_jobs.lease_epoch, llm_jobs.attempt, llm_jobs.max_attempts, llm_jobs.failures, llm_jobs.losses, llm_jobs.deferrals, llm_jobs.held_by, llm_jobs.held_until, llm_jobs.progress, llm_jobs.progress_message, llm_jobs.created_at, llm_jobs.updated_at, llm_jobs.started_at, llm_jobs.finished_at, llm_jobs.reason
FROM llm_jobs JOIN llm_job_results ON llm_job_results.job_id = llm_jobs.id
WHERE llm_jobs.state = 'failed' AND json_extract(llm_job_results.error, '$.class') = 'unknown_outcome' AND json_extract(llm_job_results.error, '$.reviewed_at') IS NULL ORDER BY llm_jobs.id DESC
 LIMIT :limit + 0 OFFSET 0
""",
    "host_store.PROMOTE": """
UPDATE llm_jobs SET state=CASE WHEN (llm_jobs.pending > 0) THEN 'waiting_children' ELSE 'waiting' END, run_at=NULL, held_by=NULL, held_until=NULL, updated_at=:now, changed_by='host', reason=:reason WHERE llm_jobs.id = :job_id AND (llm_jobs.state = 'delayed' OR llm_jobs.state = 'waiting' AND llm_jobs.held_until IS NOT NULL AND llm_jobs.type = '@batch')
""",
    "host_store.RESULT": """
SELECT llm_job_results.result, llm_job_results.error
FROM llm_job_results
WHERE llm_job_results.job_id = :job_id
""",
    "host_store.RETRY": """
UPDATE llm_jobs SET unique_key=CASE WHEN (EXISTS (SELECT 1
FROM llm_jobs AS rival
WHERE rival.unique_key = llm_jobs.unique_key AND (rival.state = 'waiting' OR rival.state = 'delayed' OR rival.state = 'waiting_children' OR rival.state = 'active'))) THEN NULL ELSE llm_jobs.unique_key END, state='waiting', start_by=NULL, lease_epoch=(llm_jobs.lease_epoch + 1), failures=0, losses=0, progress=0, progress_message=NULL, updated_at=:now, finished_at=NULL, changed_by='host', reason=:reason WHERE llm_jobs.id = :job_id AND llm_jobs.state IN ('cancelled', 'failed') AND (llm_jobs.unique_key IS NULL OR (llm_jobs.unique_key GLOB 'debounce:*') OR (llm_jobs.unique_key GLOB 'throttle:*') OR NOT (EXISTS (SELECT 1
FROM llm_jobs AS rival
WHERE rival.unique_key = llm_jobs.unique_key AND (rival.state = 'waiting' OR rival.state = 'delayed' OR rival.state = 'waiting_children' OR rival.state = 'active'))))
""",
    "host_store.REVIEWED": """
UPDATE llm_calls SET error_class='reviewed' WHERE llm_calls.job_id = :wanted AND llm_calls.state = 'unknown'
""",
    "host_store.ROW": """
SELECT llm_jobs.id, llm_jobs."key", llm_jobs.type, llm_jobs.queue, llm_jobs.model, llm_jobs.tag, llm_jobs.state, llm_jobs.parent_id, llm_jobs.pending, llm_jobs.quorum, llm_jobs.priority, llm_jobs.boost, llm_jobs.requires, llm_jobs.group_key, llm_jobs.group_limit, llm_jobs.run_at, llm_jobs.start_by, llm_jobs.lease_epoch, llm_jobs.attempt, llm_jobs.max_attempts, llm_jobs.failures, llm_jobs.losses, llm_jobs.deferrals, llm_jobs.held_by, llm_jobs.held_until, llm_jobs.progress, llm_jobs.progress_message, llm_jobs.created_at, llm_jobs.updated_at, llm_jobs.started_at, llm_jobs.finished_at, llm_jobs.reason
FROM llm_jobs
WHERE llm_jobs.id = :job_id
""",
    "host_store.USAGE": """
SELECT sum(calls), sum(input_uncached), sum(cache_read), sum(cache_write), sum(output_visible), sum(output_reasoning), sum(cache_write_1h), sum(cost), sum(unpriced) FROM (
        SELECT count(*) AS calls, sum(input_uncached) AS input_uncached, sum(cache_read) AS cache_read, sum(cache_write) AS cache_write, sum(output_visible) AS output_visible, sum(output_reasoning) AS output_reasoning, sum(cache_write_1h) AS cache_write_1h, sum(cost) AS cost, sum(cost IS NULL AND llm_calls.state IN ('completed', 'superseded')) AS unpriced
        FROM llm_calls
        UNION ALL SELECT sum(calls), sum(input_uncached) AS input_uncached, sum(cache_read) AS cache_read, sum(cache_write) AS cache_write, sum(output_visible) AS output_visible, sum(output_reasoning) AS output_reasoning, sum(cache_write_1h) AS cache_write_1h, sum(cost) AS cost, sum(unpriced) FROM llm_usage_deleted
    )
""",
    "host_store.USAGE_OF_TAG": """
SELECT sum(calls), sum(input_uncached), sum(cache_read), sum(cache_write), sum(output_visible), sum(output_reasoning), sum(cache_write_1h), sum(cost), sum(unpriced) FROM (
        SELECT count(*) AS calls, sum(input_uncached) AS input_uncached, sum(cache_read) AS cache_read, sum(cache_write) AS cache_write, sum(output_visible) AS output_visible, sum(output_reasoning) AS output_reasoning, sum(cache_write_1h) AS cache_write_1h, sum(cost) AS cost, sum(cost IS NULL AND llm_calls.state IN ('completed', 'superseded')) AS unpriced
        FROM llm_calls JOIN llm_jobs ON llm_jobs.id = llm_calls.job_id WHERE llm_jobs.tag = :tag
        UNION ALL SELECT sum(calls), sum(input_uncached) AS input_uncached, sum(cache_read) AS cache_read, sum(cache_write) AS cache_write, sum(output_visible) AS output_visible, sum(output_reasoning) AS output_reasoning, sum(cache_write_1h) AS cache_write_1h, sum(cost) AS cost, sum(unpriced) FROM llm_usage_deleted WHERE tag = :tag
    )
""",
    "identity.LIVE": """
SELECT llm_jobs.id, llm_jobs.state, llm_jobs.lease_epoch
FROM llm_jobs
WHERE llm_jobs.unique_key = :unique_key AND (state = 'waiting' OR state = 'delayed' OR state = 'waiting_children' OR state = 'active')
""",
    "identity.NEWEST": """
SELECT llm_jobs.id, llm_jobs.created_at
FROM llm_jobs
WHERE llm_jobs.unique_key = :unique_key ORDER BY llm_jobs.id DESC
 LIMIT 1 OFFSET 0
""",
    "identity.PASS_ON": """
UPDATE llm_jobs SET unique_key=NULL WHERE llm_jobs.unique_key = :held_key AND (state = 'waiting' OR state = 'delayed' OR state = 'waiting_children' OR state = 'active')
""",
    "identity.REPLACE": """
UPDATE llm_jobs SET type=:type, queue=:queue, model=:model, requires=:requires, group_key=:group_key, group_limit=:group_limit, tag=:tag, priority=:priority, run_at=:run_at, start_by=:start_by, max_attempts=:max_attempts, updated_at=:created_at, changed_by='host', reason='debounced' WHERE llm_jobs.id = :job_id
""",
    "identity.REPLACE_DATA": """
UPDATE llm_job_data SET description=:description, data=:data, options=:options WHERE llm_job_data.job_id = :of_job
""",
    "job_store.BACK": """
UPDATE llm_jobs SET state='waiting', lease_epoch=(llm_jobs.lease_epoch + 1), lease_owner=NULL, lease_until=NULL, alone=0, losses=(llm_jobs.losses + :lost), deferrals=(llm_jobs.deferrals + :deferred), held_by=:held_by, held_until=:held_until, updated_at=:now, changed_by=:actor, reason=:reason WHERE llm_jobs.id = :job_id AND llm_jobs.lease_epoch = :epoch AND llm_jobs.state = 'active'
""",
    "job_store.CHUNK": """
INSERT INTO llm_job_chunks (job_id, epoch, seq, step, text, at)
    SELECT id, lease_epoch, :seq, :step, :text, :now FROM llm_jobs WHERE id = :job_id AND lease_epoch = :epoch AND state = 'active'
    ON CONFLICT DO NOTHING
""",
    "job_store.COMPLETE": """
UPDATE llm_jobs SET state='completed', lease_owner=NULL, lease_until=NULL, alone=0, progress=100, updated_at=:now, finished_at=:now, changed_by=:actor, reason=NULL WHERE llm_jobs.id = :job_id AND llm_jobs.lease_epoch = :epoch AND llm_jobs.state = 'active' RETURNING EXISTS (SELECT *
FROM llm_job_edges
WHERE depends_on = :job_id AND state = 'open') AS anon_1
""",
    "job_store.FAIL": """
UPDATE llm_jobs SET state='failed', lease_owner=NULL, lease_until=NULL, alone=0, failures=(llm_jobs.failures + :failed), losses=(llm_jobs.losses + :lost), updated_at=:now, finished_at=:now, changed_by=:actor, reason=:reason WHERE llm_jobs.id = :job_id AND llm_jobs.lease_epoch = :epoch AND llm_jobs.state = 'active'
""",
    "job_store.PROGRESS": """
UPDATE llm_jobs SET progress=max(llm_jobs.progress, :percent), progress_message=coalesce(:message, llm_jobs.progress_message), updated_at=:now WHERE llm_jobs.id = :job_id AND llm_jobs.lease_epoch = :epoch AND llm_jobs.state = 'active'
""",
    "job_store.RETRY": """
UPDATE llm_jobs SET state=CASE WHEN (llm_jobs.failures + 1 >= coalesce(:most, llm_jobs.max_attempts)) THEN 'failed' ELSE 'delayed' END, run_at=CASE WHEN (llm_jobs.failures + 1 >= coalesce(:most, llm_jobs.max_attempts)) THEN NULL ELSE :run_at END, lease_epoch=CASE WHEN (llm_jobs.failures + 1 >= coalesce(:most, llm_jobs.max_attempts)) THEN llm_jobs.lease_epoch ELSE llm_jobs.lease_epoch + 1 END, lease_owner=NULL, lease_until=NULL, alone=0, max_attempts=coalesce(:most, llm_jobs.max_attempts), failures=(llm_jobs.failures + 1), updated_at=:now, finished_at=CASE WHEN (llm_jobs.failures + 1 >= coalesce(:most, llm_jobs.max_attempts)) THEN :now END, changed_by=:actor, reason=:reason WHERE llm_jobs.id = :job_id AND llm_jobs.lease_epoch = :epoch AND llm_jobs.state = 'active' RETURNING state
""",
    "job_store.STANDING": """
SELECT alone, EXISTS (
        SELECT 1 FROM llm_calls JOIN llm_job_data ON llm_job_data.job_id = llm_calls.job_id
        WHERE llm_calls.job_id = :job_id AND llm_calls.state = 'open' AND origin IS NOT 'batch' AND handle IS NULL
            AND json_extract(options, '$.on_unknown') = 'park'
    )
    FROM llm_jobs WHERE id = :job_id AND lease_epoch = :epoch AND state = 'active'
""",
    "ledger.COMPLETION": """
INSERT INTO llm_call_completions (call_id, completion) VALUES (:call_id, :completion)
""",
    "ledger.COMPLETIONS": """
SELECT llm_calls.job_id, llm_calls.step, llm_call_completions.completion
FROM llm_calls JOIN llm_call_completions ON llm_call_completions.call_id = llm_calls.id
WHERE llm_calls.job_id IN (SELECT anon_1.value
FROM json_each(:ids) AS anon_1) AND llm_calls.state = 'completed'
""",
    "ledger.FIRST": """
SELECT completion FROM llm_calls AS late
    JOIN llm_calls AS first ON first.job_id = late.job_id AND first.step = late.step AND first.state = 'completed'
    JOIN llm_call_completions ON call_id = first.id
    WHERE late.id = :call_id AND late.state = 'superseded'
""",
    "ledger.INTENT": """
INSERT INTO llm_calls (job_id, epoch, attempt, step, fingerprint, provider, model, limit_key, state, reserved_tokens, reserved_cost, sent_at,
        reserved_input, reserved_output, requests)
    SELECT id, lease_epoch, attempt, :step, :fingerprint, :provider, :model, :limit_key, 'open', :reserved_tokens, :reserved_cost, :now,
        :reserved_input, :reserved_output, :requests
    FROM llm_jobs WHERE id = :job_id AND lease_epoch = :epoch AND state = 'active'
    RETURNING id
""",
    "ledger.OUTCOME": """
UPDATE llm_calls SET
        state = CASE WHEN :state = 'completed' AND EXISTS (
            SELECT 1 FROM llm_calls AS first WHERE first.job_id = llm_calls.job_id AND first.step = llm_calls.step AND first.state = 'completed'
        ) THEN 'superseded' ELSE :state END,
        finished_at = :now, first_token_ms = :first_token_ms, input_uncached = :input_uncached, cache_read = :cache_read,
        cache_write = :cache_write, output_visible = :output_visible, output_reasoning = :output_reasoning, cache_write_1h = :cache_write_1h,
        cost = :cost, price_id = :price_id, finish = :finish,
        request_id = :request_id, error_class = :error_class, error = :error
    WHERE id = :call_id AND job_id = :job_id AND state IN ('open', 'unknown')
        AND (epoch = :epoch OR epoch > :epoch AND :state = 'completed' AND origin = 'resumed')
    RETURNING state, EXISTS (SELECT 1 FROM llm_jobs WHERE id = :job_id AND lease_epoch = :epoch AND state = 'active'),
        EXISTS (SELECT 1 FROM llm_budget_reservations WHERE call_id = :call_id)
""",
    "ledger.STANDS": """
SELECT 1
FROM llm_jobs
WHERE llm_jobs.id = :job_id AND llm_jobs.lease_epoch = :epoch AND llm_jobs.state = 'active'
""",
    "ledger.STEP": """
INSERT INTO llm_steps (job_id, name, value, at)
    SELECT id, :name, :value, :now FROM llm_jobs WHERE id = :job_id AND lease_epoch = :epoch AND state = 'active'
    ON CONFLICT DO NOTHING
""",
    "ledger.STORE_RESULT": """
INSERT INTO llm_job_results (job_id, result, error) VALUES (:job_id, :result, :error) ON CONFLICT (job_id) DO UPDATE SET result = excluded.result, error = excluded.error
""",
    "ledger.UNKNOWN": """
SELECT llm_calls.job_id, llm_calls.step
FROM llm_calls
WHERE llm_calls.job_id IN (SELECT anon_1.value
FROM json_each(:ids) AS anon_1) AND llm_calls.state = 'unknown' AND llm_calls.error_class IS NOT 'reviewed'
""",
    "ledger.VALUES": """
SELECT llm_steps.job_id, llm_steps.name, llm_steps.value
FROM llm_steps
WHERE llm_steps.job_id IN (SELECT anon_1.value
FROM json_each(:ids) AS anon_1)
""",
    "limits.ADD_UP": """
INSERT INTO llm_limit_usage ("key", slot, owner, requests, input, output, total)
    SELECT :key, 9007199254740992, '', coalesce(sum(requests), 0), coalesce(sum(input), 0), coalesce(sum(output), 0), coalesce(sum(total), 0)
    FROM llm_limit_usage WHERE "key" = :key AND slot < 9007199254740992
    ON CONFLICT DO UPDATE SET requests = excluded.requests, input = excluded.input, output = excluded.output, total = excluded.total
""",
    "limits.ALL_SLOTS": """
SELECT slot, sum(requests), sum(input), sum(output), sum(total) FROM llm_limit_usage WHERE "key" = :key AND slot > :now AND slot < 9007199254740992 GROUP BY slot ORDER BY slot
""",
    "limits.CHARGE": """
INSERT INTO llm_limit_usage ("key", slot, owner, requests, input, output, total)
    VALUES (:key, :slot, :owner, :requests, :input, :output, :total)
    ON CONFLICT DO UPDATE SET requests = requests + excluded.requests, input = input + excluded.input, output = output + excluded.output,
        total = total + excluded.total
""",
    "limits.CHARGE_DAY": """
INSERT INTO llm_limit_days ("key", day, owner, requests, input, output, total)
    VALUES (:key, :day, :owner, :requests, :input, :output, :total)
    ON CONFLICT DO UPDATE SET requests = requests + excluded.requests, input = input + excluded.input, output = output + excluded.output,
        total = total + excluded.total
""",
    "limits.CLEAR_HOLD": """
DELETE FROM llm_limit_holds WHERE "key" = :key
""",
    "limits.CORRECT_DAY": """
UPDATE llm_limit_days SET requests = max(0, requests + :requests), input = max(0, input + :input),
        output = max(0, output + :output), total = max(0, total + :total)
    WHERE "key" = :key AND day = :day AND owner = :owner
""",
    "limits.CORRECT_SUM": """
UPDATE llm_limit_usage SET requests = max(0, requests + :requests), input = max(0, input + :input),
        output = max(0, output + :output), total = max(0, total + :total)
    WHERE "key" = :key AND slot = 9007199254740992 AND owner = ''
""",
    "limits.DAY": """
SELECT sum(requests), sum(input), sum(output), sum(total) FROM llm_limit_days WHERE "key" = :key AND day = :day
""",
    "limits.DAYS_SINCE": """
SELECT "key", day, sum(requests), sum(input), sum(output), sum(total) FROM llm_limit_days WHERE day > :since GROUP BY "key", day ORDER BY "key", day
""",
    "limits.DAY_BY_OWNER": """
SELECT owner = :owner, sum(requests), sum(input), sum(output), sum(total) FROM llm_limit_days WHERE "key" = :key AND day = :day GROUP BY 1
""",
    "limits.DESCRIBE": """
INSERT INTO llm_limit_keys ("key", first_used_at, at, description) VALUES (:key, :now, :now, :description)
    ON CONFLICT DO UPDATE SET description = excluded.description, at = excluded.at
""",
    "limits.DESCRIPTION": """
SELECT description FROM llm_limit_keys WHERE "key" = :key
""",
    "limits.FACTORS": """
SELECT "key", factor, factor_at FROM llm_limit_keys WHERE factor < 1
""",
    "limits.FREE_JOBS": """
UPDATE llm_jobs SET held_by = NULL, held_until = NULL, updated_at = :now
    WHERE state = 'waiting' AND held_until IS NOT NULL AND held_until > :now
        AND (held_by = :key OR substr(held_by, 1, length(:key) + 1) = :key || '/')
""",
    "limits.GATHER": """
INSERT INTO llm_limit_usage ("key", slot, owner, requests, input, output, total)
    SELECT "key", :horizon, owner, sum(requests), sum(input), sum(output), sum(total) FROM llm_limit_usage
    WHERE "key" = :key AND slot > :horizon AND slot < 9007199254740992 GROUP BY owner
    ON CONFLICT DO UPDATE SET requests = requests + excluded.requests, input = input + excluded.input, output = output + excluded.output,
        total = total + excluded.total
""",
    "limits.GATHERED": """
DELETE FROM llm_limit_usage WHERE "key" = :key AND slot > :horizon AND slot < 9007199254740992
""",
    "limits.HELD": """
SELECT max(until) FROM llm_limit_holds WHERE ("key" = :key OR "key" = :account) AND until > :now
""",
    "limits.HELD_JOBS": """
SELECT held_by, count(*), min(held_until), max(held_until) FROM llm_jobs
    WHERE state = 'waiting' AND held_until IS NOT NULL AND held_until > :now GROUP BY held_by
""",
    "limits.HOLDS": """
SELECT "key", until, reason, kind, at FROM llm_limit_holds ORDER BY "key"
""",
    "limits.IN_FLIGHT": """
SELECT count(*) FROM llm_calls WHERE limit_key = :key AND state = 'open'
""",
    "limits.KEY": """
SELECT factor, factor_at, first_used_at FROM llm_limit_keys WHERE "key" = :key
""",
    "limits.KEYS": """
SELECT "key", factor, factor_at, first_used_at, description, at FROM llm_limit_keys ORDER BY "key"
""",
    "limits.LAPSED": """
SELECT sum(requests), sum(input), sum(output), sum(total) FROM llm_limit_usage WHERE "key" = :key AND slot <= :now
""",
    "limits.OPEN": """
SELECT sum(lease_owner IS :owner), sum(lease_owner IS NOT :owner) FROM llm_calls CROSS JOIN llm_jobs ON llm_jobs.id = llm_calls.job_id
    WHERE llm_calls.limit_key = :key AND llm_calls.state = 'open'
""",
    "limits.OPEN_BY_KEY": """
SELECT limit_key, count(*) FROM llm_calls WHERE state = 'open' GROUP BY limit_key
""",
    "limits.OTHERS_SLOTS": """
SELECT slot, sum(requests), sum(input), sum(output), sum(total) FROM llm_limit_usage WHERE "key" = :key AND slot > :now AND slot < 9007199254740992 AND owner <> :owner GROUP BY slot ORDER BY slot
""",
    "limits.PRUNE": """
DELETE FROM llm_limit_usage WHERE "key" = :key AND slot <= :now
""",
    "limits.PRUNE_DAYS": """
DELETE FROM llm_limit_days WHERE "key" = :key AND day < :before
""",
    "limits.SET_FACTOR": """
INSERT INTO llm_limit_keys ("key", first_used_at, at, factor, factor_at) VALUES (:key, :now, :now, :factor, :factor_at)
    ON CONFLICT DO UPDATE SET factor = excluded.factor, factor_at = excluded.factor_at
""",
    "limits.SET_HOLD": """
INSERT INTO llm_limit_holds ("key", until, reason, at, kind) VALUES (:key, :until, :reason, :now, :kind)
    ON CONFLICT DO UPDATE SET until = excluded.until, reason = excluded.reason, at = excluded.at, kind = excluded.kind
    WHERE excluded.until >= llm_limit_holds.until
""",
    "limits.SLOTS": """
SELECT slot, sum(requests), sum(input), sum(output), sum(total) FROM llm_limit_usage WHERE "key" = :key AND slot > :now AND slot < 9007199254740992 AND owner = :owner GROUP BY slot ORDER BY slot
""",
    "limits.STANDING": """
SELECT sums.requests, sums.input, sums.output, sums.total,
        (SELECT min(slot) FROM llm_limit_usage WHERE "key" = :key),
        (SELECT max(slot) FROM llm_limit_usage WHERE "key" = :key AND slot < 9007199254740992),
        lowering.factor, lowering.factor_at
    FROM (SELECT 1) LEFT JOIN llm_limit_usage AS sums ON sums."key" = :key AND sums.slot = 9007199254740992
    LEFT JOIN llm_limit_keys AS lowering ON lowering."key" = :key
""",
    "limits.TAKE_OFF": """
UPDATE llm_limit_usage SET requests = max(0, requests - :requests), input = max(0, input - :input),
        output = max(0, output - :output), total = max(0, total - :total)
    WHERE "key" = :key AND slot = :slot AND owner = :owner
""",
    "limits.USED": """
SELECT "key", sum(requests), sum(input), sum(output), sum(total) FROM llm_limit_usage WHERE slot > :now AND slot < 9007199254740992 GROUP BY "key"
""",
    "limits.USE_KEY": """
INSERT INTO llm_limit_keys ("key", first_used_at, at) VALUES (:key, :now, :now) ON CONFLICT DO NOTHING
""",
    "queues.AHEAD": """
SELECT count(*) FROM (
        SELECT 1 FROM llm_jobs AS job JOIN llm_jobs AS other ON other.state = 'waiting' AND other.lane = job.lane AND other.rank > job.rank
        WHERE job.id = :job_id
        UNION ALL
        SELECT 1 FROM llm_jobs AS job
        JOIN llm_jobs AS other ON other.state = 'waiting' AND other.lane = job.lane AND other.rank = job.rank AND other.id < job.id
        WHERE job.id = :job_id
        LIMIT 1000
    )
""",
    "queues.COUNTS": """
SELECT llm_job_counts.type, llm_job_counts.state, sum(llm_job_counts.jobs) AS sum_1
FROM llm_job_counts GROUP BY llm_job_counts.type, llm_job_counts.state
HAVING sum(llm_job_counts.jobs) > 0
""",
    "queues.LANE_NOTE": """
SELECT held_by FROM llm_jobs WHERE id = (
        SELECT first.id FROM llm_jobs AS job JOIN llm_jobs AS first ON first.state = 'waiting' AND first.lane = job.lane
        WHERE job.id = :job_id ORDER BY first.rank DESC, first.id LIMIT 1
    ) AND held_until IS NULL AND held_by LIKE 'unroutable:%'
""",
    "queues.MISCOUNTED": """
SELECT queue, type, state, sum(kept), sum(counted) FROM (
        SELECT queue, type, state, jobs AS kept, 0 AS counted FROM llm_job_counts
        UNION ALL SELECT queue, type, state, 0, count(*) FROM llm_jobs GROUP BY queue, type, state
    ) GROUP BY queue, type, state HAVING sum(kept) <> sum(counted)
""",
    "queues.PAUSE": """
INSERT INTO llm_queues (name, paused_at) VALUES (:name, :now) ON CONFLICT (name) DO UPDATE SET paused_at = excluded.paused_at WHERE llm_queues.paused_at IS NULL
""",
    "queues.PAUSED_AT": """
SELECT llm_queues.paused_at
FROM llm_queues
WHERE llm_queues.name = :name
""",
    "queues.QUEUES": """
SELECT queue, state, sum(jobs) FROM llm_job_counts GROUP BY queue, state HAVING sum(jobs) > 0
    UNION ALL SELECT name, NULL, paused_at FROM llm_queues
    ORDER BY 1, 2
""",
    "queues.RECOUNT": """
INSERT INTO llm_job_counts (queue, type, state, jobs) VALUES (:queue, :type, :state, :jobs)
    ON CONFLICT DO UPDATE SET jobs = excluded.jobs
""",
    "queues.RESUME": """
UPDATE llm_queues SET paused_at = NULL WHERE name = :name AND paused_at IS NOT NULL
""",
    "queues.WORKED_ON": """
SELECT count(*) FROM llm_jobs WHERE state = 'active' AND group_key = :group_key
""",
    "retention.ENDED": """
SELECT id, finished_at,
        (SELECT count(*) FROM llm_job_chunks WHERE job_id = llm_jobs.id) + (SELECT count(*) FROM llm_calls WHERE job_id = llm_jobs.id) * 2 + 8
    FROM llm_jobs
    WHERE finished_at IS NOT NULL AND finished_at < :before AND (finished_at, id) > (:at, :job_id)
        AND state IN (SELECT value FROM json_each(:states))
        AND NOT EXISTS (
            SELECT 1 FROM llm_job_edges JOIN llm_jobs AS waiting ON waiting.id = llm_job_edges.job_id
            WHERE llm_job_edges.depends_on = llm_jobs.id AND waiting.state NOT IN ('completed', 'failed', 'cancelled')
        )
    ORDER BY finished_at, id LIMIT :limit + 0
""",
    "routes.OF": """
SELECT limit_keys, goes_on FROM llm_routes WHERE model = :model
""",
    "routes.PUBLISH": """
INSERT INTO llm_routes (model, limit_keys, goes_on, at) VALUES (:model, :keys, :goes_on, :now)
    ON CONFLICT DO UPDATE SET limit_keys = excluded.limit_keys, goes_on = excluded.goes_on, at = excluded.at
""",
    "schedules.DUE": """
SELECT llm_schedules.name, llm_schedules.cron, llm_schedules.every_ms, llm_schedules.timezone, llm_schedules.catch_up, llm_schedules.job, llm_schedules.next_at, llm_schedules.last_at, llm_schedules.paused_at, llm_schedules.problem, llm_schedules.created_at
FROM llm_schedules
WHERE llm_schedules.paused_at IS NULL AND llm_schedules.next_at <= :now ORDER BY llm_schedules.next_at
 LIMIT :limit + 0 OFFSET 0
""",
    "schedules.FIRED": """
UPDATE llm_schedules SET next_at=:next, last_at=:fired WHERE llm_schedules.name = :wanted
""",
    "schedules.LIST": """
SELECT llm_schedules.name, llm_schedules.cron, llm_schedules.every_ms, llm_schedules.timezone, llm_schedules.catch_up, llm_schedules.job, llm_schedules.next_at, llm_schedules.last_at, llm_schedules.paused_at, llm_schedules.problem, llm_schedules.created_at
FROM llm_schedules ORDER BY llm_schedules.name
""",
    "schedules.ONE": """
SELECT llm_schedules.name, llm_schedules.cron, llm_schedules.every_ms, llm_schedules.timezone, llm_schedules.catch_up, llm_schedules.job, llm_schedules.next_at, llm_schedules.last_at, llm_schedules.paused_at, llm_schedules.problem, llm_schedules.created_at
FROM llm_schedules
WHERE llm_schedules.name = :name
""",
    "schedules.PAUSE": """
UPDATE llm_schedules SET paused_at=:now, problem=:problem WHERE llm_schedules.name = :wanted
""",
    "schedules.PUT": """
INSERT INTO llm_schedules (name, cron, every_ms, timezone, catch_up, job, next_at, created_at) VALUES (:name, :cron, :every_ms, :timezone, :catch_up, :job, :next_at, :created_at) ON CONFLICT (name) DO UPDATE SET cron = excluded.cron, every_ms = excluded.every_ms, timezone = excluded.timezone, catch_up = excluded.catch_up, job = excluded.job, next_at = CASE WHEN llm_schedules.cron IS excluded.cron AND llm_schedules.every_ms IS excluded.every_ms AND llm_schedules.timezone = excluded.timezone THEN llm_schedules.next_at ELSE excluded.next_at END, paused_at = CASE WHEN (llm_schedules.problem IS NULL) THEN llm_schedules.paused_at ELSE NULL END, problem = NULL
""",
    "schedules.REARM": """
UPDATE llm_schedules SET next_at=:next WHERE llm_schedules.name = :wanted AND llm_schedules.next_at > :next
""",
    "schedules.REMOVE": """
DELETE FROM llm_schedules WHERE llm_schedules.name = :wanted
""",
    "schedules.RESUME": """
UPDATE llm_schedules SET next_at=:next, paused_at=NULL, problem=NULL WHERE llm_schedules.name = :wanted
""",
    "schedules.RUNNING": """
SELECT llm_schedules.name, llm_schedules.cron, llm_schedules.every_ms, llm_schedules.timezone, llm_schedules.catch_up, llm_schedules.job, llm_schedules.next_at, llm_schedules.last_at, llm_schedules.paused_at, llm_schedules.problem, llm_schedules.created_at
FROM llm_schedules
WHERE llm_schedules.paused_at IS NULL
""",
    "search.DELETE": """
DELETE FROM llm_jobs WHERE llm_jobs.id IN (SELECT anon_1.value
FROM json_each(:ids) AS anon_1) AND llm_jobs.state IN ('cancelled', 'completed', 'failed') AND NOT (EXISTS (SELECT 1
FROM llm_job_edges JOIN llm_jobs AS live ON live.id = llm_job_edges.job_id
WHERE llm_job_edges.depends_on = llm_jobs.id AND (live.state NOT IN ('cancelled', 'completed', 'failed'))))
""",
}

CREATION: tuple[str, ...] = (
    """
CREATE TABLE llm_budget_usage (
	budget TEXT NOT NULL,
	period TEXT NOT NULL,
	spent INTEGER DEFAULT '0' NOT NULL,
	reserved INTEGER DEFAULT '0' NOT NULL,
	tokens_spent INTEGER DEFAULT '0' NOT NULL,
	tokens_reserved INTEGER DEFAULT '0' NOT NULL,
	cap INTEGER,
	token_cap INTEGER,
	until INTEGER,
	updated_at INTEGER NOT NULL,
	PRIMARY KEY (budget, period)
)
 WITHOUT ROWID
""",
    """
CREATE TABLE llm_budgets (
	name TEXT NOT NULL,
	settings TEXT NOT NULL CONSTRAINT settings_json CHECK (json_valid(settings)),
	at INTEGER NOT NULL,
	PRIMARY KEY (name)
)
""",
    """
CREATE TABLE llm_cache (
	"key" TEXT NOT NULL,
	completion TEXT NOT NULL CONSTRAINT completion_json CHECK (json_valid(completion)),
	cost INTEGER,
	at INTEGER NOT NULL,
	hits INTEGER DEFAULT '0' NOT NULL,
	used_at INTEGER NOT NULL,
	bytes INTEGER NOT NULL,
	PRIMARY KEY ("key")
)
""",
    """
CREATE TABLE llm_cache_flights (
	"key" TEXT NOT NULL,
	job_id INTEGER NOT NULL,
	epoch INTEGER NOT NULL,
	number INTEGER NOT NULL,
	at INTEGER NOT NULL,
	PRIMARY KEY ("key")
)
 WITHOUT ROWID
""",
    """
CREATE TABLE llm_conversations (
	id INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
	name TEXT NOT NULL,
	head_id INTEGER,
	settings TEXT DEFAULT '{}' NOT NULL CONSTRAINT settings_json CHECK (json_valid(settings)),
	created_at INTEGER DEFAULT (CAST(ROUND((julianday('now') - 2440587.5) * 86400000) AS INTEGER)) NOT NULL,
	UNIQUE (name)
)
""",
    """
CREATE TABLE llm_job_counts (
	queue TEXT NOT NULL,
	type TEXT NOT NULL,
	state TEXT NOT NULL,
	jobs INTEGER NOT NULL CONSTRAINT jobs_positive CHECK (jobs >= 0),
	PRIMARY KEY (queue, type, state)
)
 WITHOUT ROWID
""",
    """
CREATE TABLE llm_limit_days (
	"key" TEXT NOT NULL,
	day INTEGER NOT NULL,
	owner TEXT NOT NULL,
	requests INTEGER NOT NULL,
	input INTEGER NOT NULL,
	output INTEGER NOT NULL,
	total INTEGER NOT NULL,
	PRIMARY KEY ("key", day, owner)
)
 WITHOUT ROWID
""",
    """
CREATE TABLE llm_limit_holds (
	"key" TEXT NOT NULL,
	until INTEGER NOT NULL,
	reason TEXT NOT NULL,
	at INTEGER NOT NULL,
	kind TEXT DEFAULT 'rate' NOT NULL,
	PRIMARY KEY ("key")
)
""",
    """
CREATE TABLE llm_limit_keys (
	"key" TEXT NOT NULL,
	factor FLOAT DEFAULT '1' NOT NULL,
	factor_at INTEGER DEFAULT '0' NOT NULL,
	first_used_at INTEGER NOT NULL,
	description TEXT DEFAULT '{}' NOT NULL CONSTRAINT description_json CHECK (json_valid(description)),
	at INTEGER NOT NULL,
	PRIMARY KEY ("key")
)
""",
    """
CREATE TABLE llm_limit_usage (
	"key" TEXT NOT NULL,
	slot INTEGER NOT NULL,
	owner TEXT NOT NULL,
	requests INTEGER NOT NULL,
	input INTEGER NOT NULL,
	output INTEGER NOT NULL,
	total INTEGER NOT NULL,
	PRIMARY KEY ("key", slot, owner)
)
 WITHOUT ROWID
""",
    """
CREATE TABLE llm_queues (
	name TEXT NOT NULL,
	paused_at INTEGER,
	PRIMARY KEY (name)
)
""",
    """
CREATE TABLE llm_routes (
	model TEXT NOT NULL,
	limit_keys TEXT NOT NULL CONSTRAINT limit_keys_json CHECK (json_valid(limit_keys)),
	goes_on TEXT NOT NULL CONSTRAINT goes_on_json CHECK (json_valid(goes_on)),
	at INTEGER NOT NULL,
	PRIMARY KEY (model)
)
""",
    """
CREATE TABLE llm_schedules (
	name TEXT NOT NULL,
	cron TEXT,
	every_ms INTEGER CONSTRAINT every_at_least_a_second CHECK (every_ms IS NULL OR every_ms >= 1000),
	timezone TEXT DEFAULT 'UTC' NOT NULL,
	catch_up TEXT DEFAULT 'latest' NOT NULL CONSTRAINT catch_up_known CHECK ((catch_up = 'latest' OR catch_up = 'all')),
	job TEXT NOT NULL CONSTRAINT job_json CHECK (json_valid(job)),
	next_at INTEGER NOT NULL,
	last_at INTEGER,
	paused_at INTEGER,
	problem TEXT,
	created_at INTEGER DEFAULT (CAST(ROUND((julianday('now') - 2440587.5) * 86400000) AS INTEGER)) NOT NULL,
	PRIMARY KEY (name),
	CONSTRAINT cron_or_every CHECK ((cron IS NULL) <> (every_ms IS NULL))
)
""",
    """
CREATE TABLE llm_usage_deleted (
	day INTEGER NOT NULL,
	tag TEXT NOT NULL,
	provider TEXT NOT NULL,
	model TEXT NOT NULL,
	calls INTEGER NOT NULL,
	input_uncached INTEGER NOT NULL,
	cache_read INTEGER NOT NULL,
	cache_write INTEGER NOT NULL,
	output_visible INTEGER NOT NULL,
	output_reasoning INTEGER NOT NULL,
	cache_write_1h INTEGER NOT NULL,
	cost INTEGER,
	unpriced INTEGER NOT NULL,
	PRIMARY KEY (tag, day, provider, model)
)
 WITHOUT ROWID
""",
    """
CREATE TABLE llm_jobs (
	id INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
	"key" TEXT CONSTRAINT key_length CHECK (length(key) BETWEEN 1 AND 200),
	type TEXT NOT NULL,
	queue TEXT DEFAULT 'default' NOT NULL,
	model TEXT,
	requires TEXT,
	group_key TEXT,
	group_limit INTEGER,
	lane TEXT GENERATED ALWAYS AS (queue || '|' || type || '|' || coalesce(model, '') || '|' || coalesce(requires, '') || '|' || coalesce(group_key, '')) VIRTUAL,
	tag TEXT,
	unique_key TEXT,
	parent_id INTEGER,
	pending INTEGER DEFAULT '0' NOT NULL,
	quorum INTEGER,
	conversation_id INTEGER,
	state TEXT DEFAULT 'waiting' NOT NULL,
	priority INTEGER DEFAULT '0' NOT NULL,
	boost INTEGER DEFAULT '0' NOT NULL,
	rank INTEGER GENERATED ALWAYS AS (priority + boost) VIRTUAL,
	run_at INTEGER,
	start_by INTEGER,
	lease_epoch INTEGER DEFAULT '0' NOT NULL,
	lease_owner TEXT,
	lease_until INTEGER,
	alone INTEGER DEFAULT '0' NOT NULL,
	attempt INTEGER DEFAULT '0' NOT NULL,
	max_attempts INTEGER DEFAULT '3' NOT NULL,
	failures INTEGER DEFAULT '0' NOT NULL,
	losses INTEGER DEFAULT '0' NOT NULL,
	deferrals INTEGER DEFAULT '0' NOT NULL,
	held_by TEXT,
	held_until INTEGER,
	progress INTEGER DEFAULT '0' NOT NULL,
	progress_message TEXT,
	created_at INTEGER DEFAULT (CAST(ROUND((julianday('now') - 2440587.5) * 86400000) AS INTEGER)) NOT NULL,
	updated_at INTEGER DEFAULT (CAST(ROUND((julianday('now') - 2440587.5) * 86400000) AS INTEGER)) NOT NULL,
	started_at INTEGER,
	finished_at INTEGER,
	changed_by TEXT DEFAULT 'host' NOT NULL,
	reason TEXT,
	root_id INTEGER,
	CONSTRAINT state_known CHECK ((state = 'waiting' OR state = 'delayed' OR state = 'waiting_children' OR state = 'active' OR state = 'completed' OR state = 'failed' OR state = 'cancelled')),
	CONSTRAINT type_name CHECK (length(type) BETWEEN 1 AND 100 AND instr(type, '|') = 0),
	CONSTRAINT queue_name CHECK (length(queue) BETWEEN 1 AND 100 AND instr(queue, '|') = 0),
	CONSTRAINT model_name CHECK (model IS NULL OR instr(model, '|') = 0),
	CONSTRAINT requires_names CHECK (requires IS NULL OR (length(requires) BETWEEN 1 AND 200 AND instr(requires, '|') = 0)),
	CONSTRAINT group_key_length CHECK (group_key IS NULL OR length(group_key) BETWEEN 1 AND 200),
	CONSTRAINT group_limit_positive CHECK (group_limit IS NULL OR (group_key IS NOT NULL AND group_limit >= 1)),
	CONSTRAINT unique_key_length CHECK (unique_key IS NULL OR length(unique_key) BETWEEN 1 AND 200),
	CONSTRAINT pending_positive CHECK (pending >= 0 AND (quorum IS NULL OR quorum >= 1)),
	CONSTRAINT boost_range CHECK (boost BETWEEN 0 AND 1000000000),
	CONSTRAINT priority_range CHECK (priority BETWEEN -1000000000 AND 1000000000),
	CONSTRAINT progress_range CHECK (progress BETWEEN 0 AND 100),
	CONSTRAINT max_attempts_range CHECK (max_attempts BETWEEN 1 AND 1000),
	CONSTRAINT counters_positive CHECK (failures >= 0 AND losses >= 0 AND deferrals >= 0 AND attempt >= 0),
	CONSTRAINT run_at_when_delayed CHECK ((state = 'delayed') = (run_at IS NOT NULL)),
	CONSTRAINT lease_when_active CHECK ((state = 'active') = (lease_owner IS NOT NULL AND lease_until IS NOT NULL)),
	FOREIGN KEY(parent_id) REFERENCES llm_jobs (id) ON DELETE SET NULL,
	FOREIGN KEY(conversation_id) REFERENCES llm_conversations (id) ON DELETE SET NULL
)
""",
    """
CREATE TABLE llm_messages (
	id INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
	conversation_id INTEGER NOT NULL,
	parent_id INTEGER,
	turn INTEGER NOT NULL,
	role TEXT NOT NULL,
	content TEXT NOT NULL CONSTRAINT content_json CHECK (json_valid(content)),
	tokens INTEGER,
	job_id INTEGER,
	at INTEGER NOT NULL,
	FOREIGN KEY(conversation_id) REFERENCES llm_conversations (id) ON DELETE CASCADE
)
""",
    """
CREATE TABLE llm_batches (
	id INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
	job_id INTEGER NOT NULL,
	kind TEXT NOT NULL CONSTRAINT batch_kind CHECK ((kind = 'batch' OR kind = 'group')),
	provider TEXT NOT NULL,
	group_key TEXT NOT NULL,
	endpoint TEXT NOT NULL,
	state TEXT DEFAULT 'open' NOT NULL CONSTRAINT batch_state CHECK ((state = 'open' OR state = 'sealed' OR state = 'uploaded' OR state = 'creating' OR state = 'submitted' OR state = 'ended' OR state = 'downloading' OR state = 'applied' OR state = 'failed')),
	requests INTEGER DEFAULT '0' NOT NULL,
	bytes INTEGER DEFAULT '0' NOT NULL,
	tokens INTEGER DEFAULT '0' NOT NULL,
	tag TEXT NOT NULL,
	sha256 TEXT,
	file_id TEXT,
	batch_id TEXT,
	results TEXT CONSTRAINT results_json CHECK (results IS NULL OR json_valid(results)),
	"offset" INTEGER DEFAULT '0' NOT NULL,
	polls INTEGER DEFAULT '0' NOT NULL,
	created_at INTEGER NOT NULL,
	sealed_at INTEGER,
	creating_at INTEGER,
	submitted_at INTEGER,
	ended_at INTEGER,
	updated_at INTEGER NOT NULL,
	error TEXT CONSTRAINT error_json CHECK (error IS NULL OR json_valid(error)),
	FOREIGN KEY(job_id) REFERENCES llm_jobs (id) ON DELETE CASCADE
)
""",
    """
CREATE TABLE llm_calls (
	id INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
	job_id INTEGER NOT NULL,
	epoch INTEGER NOT NULL,
	attempt INTEGER NOT NULL,
	step TEXT NOT NULL,
	fingerprint TEXT NOT NULL,
	provider TEXT NOT NULL,
	model TEXT NOT NULL,
	limit_key TEXT NOT NULL,
	state TEXT NOT NULL CONSTRAINT call_state CHECK ((state = 'open' OR state = 'completed' OR state = 'superseded' OR state = 'failed' OR state = 'unknown')),
	reserved_tokens INTEGER NOT NULL,
	reserved_cost INTEGER,
	sent_at INTEGER NOT NULL,
	finished_at INTEGER,
	first_token_ms INTEGER,
	input_uncached INTEGER,
	cache_read INTEGER,
	cache_write INTEGER,
	output_visible INTEGER,
	output_reasoning INTEGER,
	cost INTEGER,
	finish TEXT,
	request_id TEXT,
	error_class TEXT,
	error TEXT,
	cache_write_1h INTEGER,
	requests INTEGER DEFAULT '1' NOT NULL,
	reserved_input INTEGER DEFAULT '0' NOT NULL,
	reserved_output INTEGER DEFAULT '0' NOT NULL,
	origin TEXT,
	handle TEXT CONSTRAINT handle_json CHECK (handle IS NULL OR json_valid(handle)),
	price_id TEXT,
	saved INTEGER,
	FOREIGN KEY(job_id) REFERENCES llm_jobs (id) ON DELETE CASCADE
)
""",
    """
CREATE TABLE llm_job_chunks (
	job_id INTEGER NOT NULL,
	epoch INTEGER NOT NULL,
	seq INTEGER NOT NULL,
	step TEXT NOT NULL,
	text TEXT NOT NULL,
	at INTEGER NOT NULL,
	PRIMARY KEY (job_id, epoch, seq),
	FOREIGN KEY(job_id) REFERENCES llm_jobs (id) ON DELETE CASCADE
)
 WITHOUT ROWID
""",
    """
CREATE TABLE llm_job_data (
	job_id INTEGER NOT NULL,
	description TEXT,
	data TEXT DEFAULT '{}' NOT NULL CONSTRAINT data_json CHECK (json_valid(data)),
	options TEXT DEFAULT '{}' NOT NULL CONSTRAINT options_known CHECK (options = '{}' OR json_valid(options) AND json_type(options) = 'object' AND coalesce(json_extract(options, '$.on_unknown'), 'retry') IN ('retry', 'park') AND coalesce(json_extract(options, '$.latency'), 'now') IN ('now', 'batch') AND coalesce(json_type(options, '$.first_token_timeout'), 'null') IN ('null', 'integer', 'real') AND coalesce(json_type(options, '$.no_progress_timeout'), 'null') IN ('null', 'integer', 'real') AND coalesce(json_type(options, '$.total_timeout'), 'null') IN ('null', 'integer', 'real') AND coalesce(json_type(options, '$.job_timeout'), 'null') IN ('null', 'integer', 'real') AND coalesce(json_type(options, '$.deadline'), 'null') IN ('null', 'integer', 'real') AND coalesce(json_type(options, '$.budget'), 'null') IN ('null', 'integer', 'real') AND coalesce(json_type(options, '$.cache'), 'null') IN ('null', 'integer', 'real')),
	PRIMARY KEY (job_id),
	FOREIGN KEY(job_id) REFERENCES llm_jobs (id) ON DELETE CASCADE
)
""",
    """
CREATE TABLE llm_job_edges (
	job_id INTEGER NOT NULL,
	depends_on INTEGER NOT NULL,
	step TEXT DEFAULT '' NOT NULL,
	name TEXT,
	place INTEGER DEFAULT '0' NOT NULL,
	policy TEXT DEFAULT 'fail' NOT NULL CONSTRAINT edge_policy CHECK ((policy = 'fail' OR policy = 'ignore' OR policy = 'continue')),
	state TEXT DEFAULT 'open' NOT NULL CONSTRAINT edge_state CHECK ((state = 'open' OR state = 'met' OR state = 'failed' OR state = 'moot')),
	PRIMARY KEY (job_id, depends_on, step),
	CONSTRAINT edge_not_to_itself CHECK (job_id <> depends_on),
	FOREIGN KEY(job_id) REFERENCES llm_jobs (id) ON DELETE CASCADE,
	FOREIGN KEY(depends_on) REFERENCES llm_jobs (id) ON DELETE CASCADE
)
 WITHOUT ROWID
""",
    """
CREATE TABLE llm_job_results (
	job_id INTEGER NOT NULL,
	result TEXT CONSTRAINT result_json CHECK (result IS NULL OR json_valid(result)),
	error TEXT CONSTRAINT error_json CHECK (error IS NULL OR json_valid(error)),
	PRIMARY KEY (job_id),
	FOREIGN KEY(job_id) REFERENCES llm_jobs (id) ON DELETE CASCADE
)
""",
    """
CREATE TABLE llm_job_transitions (
	id INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
	job_id INTEGER NOT NULL,
	from_state TEXT,
	to_state TEXT NOT NULL,
	at INTEGER NOT NULL,
	epoch INTEGER NOT NULL,
	attempt INTEGER NOT NULL,
	actor TEXT NOT NULL,
	reason TEXT,
	FOREIGN KEY(job_id) REFERENCES llm_jobs (id) ON DELETE CASCADE
)
""",
    """
CREATE TABLE llm_steps (
	job_id INTEGER NOT NULL,
	name TEXT NOT NULL,
	value TEXT NOT NULL CONSTRAINT value_json CHECK (json_valid(value)),
	at INTEGER NOT NULL,
	PRIMARY KEY (job_id, name),
	FOREIGN KEY(job_id) REFERENCES llm_jobs (id) ON DELETE CASCADE
)
 WITHOUT ROWID
""",
    """
CREATE TABLE llm_batch_requests (
	id INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
	batch_id INTEGER NOT NULL,
	job_id INTEGER NOT NULL,
	step TEXT NOT NULL,
	state TEXT DEFAULT 'waiting' NOT NULL CONSTRAINT batch_request_state CHECK ((state = 'waiting' OR state = 'sent' OR state = 'done' OR state = 'failed' OR state = 'left' OR state = 'again')),
	model TEXT NOT NULL,
	provider_model TEXT NOT NULL,
	inputs INTEGER DEFAULT '0' NOT NULL,
	fingerprint TEXT NOT NULL,
	limit_key TEXT NOT NULL,
	bytes INTEGER NOT NULL,
	tokens INTEGER NOT NULL,
	reserved_cost INTEGER,
	call_id INTEGER,
	error TEXT CONSTRAINT error_json CHECK (error IS NULL OR json_valid(error)),
	deadline INTEGER,
	at INTEGER NOT NULL,
	FOREIGN KEY(batch_id) REFERENCES llm_batches (id) ON DELETE CASCADE,
	FOREIGN KEY(job_id) REFERENCES llm_jobs (id) ON DELETE CASCADE,
	FOREIGN KEY(call_id) REFERENCES llm_calls (id) ON DELETE SET NULL
)
""",
    """
CREATE TABLE llm_budget_reservations (
	call_id INTEGER NOT NULL,
	budget TEXT NOT NULL,
	period TEXT NOT NULL,
	amount INTEGER NOT NULL,
	tokens INTEGER NOT NULL,
	PRIMARY KEY (call_id, budget),
	FOREIGN KEY(call_id) REFERENCES llm_calls (id) ON DELETE CASCADE
)
 WITHOUT ROWID
""",
    """
CREATE TABLE llm_call_completions (
	call_id INTEGER NOT NULL,
	completion TEXT NOT NULL CONSTRAINT completion_json CHECK (json_valid(completion)),
	PRIMARY KEY (call_id),
	FOREIGN KEY(call_id) REFERENCES llm_calls (id) ON DELETE CASCADE
)
""",
    """
CREATE TABLE llm_batch_bodies (
	request_id INTEGER NOT NULL,
	request TEXT NOT NULL CONSTRAINT request_json CHECK (json_valid(request)),
	PRIMARY KEY (request_id),
	FOREIGN KEY(request_id) REFERENCES llm_batch_requests (id) ON DELETE CASCADE
)
""",
    """
CREATE INDEX llm_cache_used ON llm_cache (used_at, bytes)
""",
    """
CREATE INDEX llm_schedules_due ON llm_schedules (next_at) WHERE paused_at IS NULL
""",
    """
CREATE INDEX llm_jobs_active ON llm_jobs (lease_owner, lease_until) WHERE state = 'active'
""",
    """
CREATE INDEX llm_jobs_ageing ON llm_jobs (boost, updated_at) WHERE state = 'waiting'
""",
    """
CREATE INDEX llm_jobs_conversation ON llm_jobs (conversation_id, id) WHERE conversation_id IS NOT NULL
""",
    """
CREATE INDEX llm_jobs_delayed ON llm_jobs (run_at) WHERE state = 'delayed'
""",
    """
CREATE INDEX llm_jobs_ended ON llm_jobs (finished_at) WHERE finished_at IS NOT NULL
""",
    """
CREATE INDEX llm_jobs_failed ON llm_jobs (id) WHERE state = 'failed'
""",
    """
CREATE INDEX llm_jobs_group ON llm_jobs (group_key) WHERE state = 'active' AND group_key IS NOT NULL
""",
    """
CREATE INDEX llm_jobs_held ON llm_jobs (held_until) WHERE state = 'waiting' AND held_until IS NOT NULL
""",
    """
CREATE UNIQUE INDEX llm_jobs_key ON llm_jobs ("key") WHERE key IS NOT NULL
""",
    """
CREATE INDEX llm_jobs_parent ON llm_jobs (parent_id) WHERE parent_id IS NOT NULL
""",
    """
CREATE INDEX llm_jobs_parked ON llm_jobs (id) WHERE state = 'waiting_children'
""",
    """
CREATE INDEX llm_jobs_root ON llm_jobs (root_id) WHERE root_id IS NOT NULL
""",
    """
CREATE INDEX llm_jobs_start_by ON llm_jobs (start_by) WHERE state = 'waiting' AND start_by IS NOT NULL
""",
    """
CREATE INDEX llm_jobs_suspect ON llm_jobs (losses) WHERE state = 'waiting' AND losses > 0
""",
    """
CREATE INDEX llm_jobs_tag ON llm_jobs (tag, state) WHERE tag IS NOT NULL
""",
    """
CREATE INDEX llm_jobs_throttle ON llm_jobs (unique_key, id) WHERE unique_key IS NOT NULL
""",
    """
CREATE INDEX llm_jobs_turns ON llm_jobs (conversation_id, id) WHERE conversation_id IS NOT NULL AND (state = 'waiting' OR state = 'delayed' OR state = 'waiting_children' OR state = 'active')
""",
    """
CREATE UNIQUE INDEX llm_jobs_unique ON llm_jobs (unique_key) WHERE unique_key IS NOT NULL AND (state = 'waiting' OR state = 'delayed' OR state = 'waiting_children' OR state = 'active')
""",
    """
CREATE INDEX llm_jobs_waiting ON llm_jobs (lane, rank DESC, id) WHERE state = 'waiting'
""",
    """
CREATE INDEX llm_messages_conversation ON llm_messages (conversation_id, id)
""",
    """
CREATE INDEX llm_batches_job ON llm_batches (job_id)
""",
    """
CREATE INDEX llm_batches_open ON llm_batches (group_key) WHERE state = 'open'
""",
    """
CREATE INDEX llm_calls_in_flight ON llm_calls (limit_key) WHERE state = 'open'
""",
    """
CREATE INDEX llm_calls_job ON llm_calls (job_id, step)
""",
    """
CREATE UNIQUE INDEX llm_calls_once ON llm_calls (job_id, step) WHERE state = 'completed'
""",
    """
CREATE INDEX llm_calls_open ON llm_calls (job_id) WHERE state = 'open'
""",
    """
CREATE INDEX llm_calls_sent ON llm_calls (sent_at)
""",
    """
CREATE INDEX llm_job_data_budget ON llm_job_data (job_id) WHERE options <> '{}' AND json_extract(options, '$.budget') IS NOT NULL
""",
    """
CREATE INDEX llm_job_edges_on ON llm_job_edges (depends_on, state)
""",
    """
CREATE INDEX llm_job_transitions_job ON llm_job_transitions (job_id, id)
""",
    """
CREATE INDEX llm_batch_requests_batch ON llm_batch_requests (batch_id, state)
""",
    """
CREATE INDEX llm_batch_requests_call ON llm_batch_requests (call_id) WHERE call_id IS NOT NULL
""",
    """
CREATE INDEX llm_batch_requests_due ON llm_batch_requests (deadline) WHERE state IN ('waiting', 'sent') AND deadline IS NOT NULL
""",
    """
CREATE INDEX llm_batch_requests_job ON llm_batch_requests (job_id, step)
""",
    """
CREATE TRIGGER llm_jobs_added AFTER INSERT ON llm_jobs WHEN NEW.conversation_id IS NULL
        BEGIN INSERT INTO llm_job_transitions (job_id, from_state, to_state, at, epoch, attempt, actor, reason) VALUES (NEW.id, NULL, CASE WHEN (NEW.state = 'delayed' OR NEW.state = 'waiting' OR NEW.state = 'waiting_children') THEN NEW.state
        ELSE RAISE(ABORT, 'llm_jobs.state: a job is added as waiting, delayed or waiting_children') END,
        NEW.created_at, NEW.lease_epoch, NEW.attempt, NEW.changed_by, NEW.reason); END
""",
    """
CREATE TRIGGER llm_jobs_moved AFTER UPDATE OF state ON llm_jobs WHEN OLD.state <> NEW.state AND NOT (NEW.conversation_id IS NOT NULL AND (OLD.state = 'cancelled' OR OLD.state = 'completed' OR OLD.state = 'failed') AND NOT (NEW.state = 'cancelled' OR NEW.state = 'completed' OR NEW.state = 'failed'))
        BEGIN INSERT INTO llm_job_transitions (job_id, from_state, to_state, at, epoch, attempt, actor, reason) VALUES (NEW.id, OLD.state, CASE WHEN CASE OLD.state WHEN 'waiting' THEN (NEW.state = 'active' OR NEW.state = 'cancelled' OR NEW.state = 'delayed' OR NEW.state = 'failed' OR NEW.state = 'waiting_children') WHEN 'delayed' THEN (NEW.state = 'cancelled' OR NEW.state = 'failed' OR NEW.state = 'waiting' OR NEW.state = 'waiting_children') WHEN 'waiting_children' THEN (NEW.state = 'cancelled' OR NEW.state = 'failed' OR NEW.state = 'waiting') WHEN 'active' THEN (NEW.state = 'cancelled' OR NEW.state = 'completed' OR NEW.state = 'delayed' OR NEW.state = 'failed' OR NEW.state = 'waiting' OR NEW.state = 'waiting_children') WHEN 'failed' THEN (NEW.state = 'waiting' OR NEW.state = 'waiting_children') WHEN 'cancelled' THEN (NEW.state = 'waiting' OR NEW.state = 'waiting_children') ELSE 0 END THEN NEW.state
        ELSE RAISE(ABORT, 'llm_jobs.state: illegal transition') END,
        NEW.updated_at, NEW.lease_epoch, NEW.attempt, NEW.changed_by, NEW.reason); END
""",
    """
CREATE TRIGGER llm_jobs_left AFTER UPDATE OF state ON llm_jobs WHEN OLD.state = 'active' AND NEW.state <> 'active'
        AND EXISTS (SELECT 1 FROM llm_calls WHERE job_id = NEW.id AND state = 'open' AND origin IS NOT 'batch')
        BEGIN UPDATE llm_calls SET state = 'unknown', finished_at = NEW.updated_at
        WHERE job_id = NEW.id AND state = 'open' AND origin IS NOT 'batch'; END
""",
    """
CREATE TRIGGER llm_jobs_counted AFTER INSERT ON llm_jobs WHEN NEW.conversation_id IS NULL
        BEGIN INSERT INTO llm_job_counts (queue, type, state, jobs) VALUES (NEW.queue, NEW.type, NEW.state, 1) ON CONFLICT DO UPDATE SET jobs = jobs + 1; END
""",
    """
CREATE TRIGGER llm_jobs_recounted AFTER UPDATE OF state, queue, type ON llm_jobs
        WHEN (OLD.state <> NEW.state OR OLD.queue <> NEW.queue OR OLD.type <> NEW.type) AND NOT (NEW.conversation_id IS NOT NULL AND (OLD.state = 'cancelled' OR OLD.state = 'completed' OR OLD.state = 'failed') AND NOT (NEW.state = 'cancelled' OR NEW.state = 'completed' OR NEW.state = 'failed'))
        BEGIN UPDATE llm_job_counts SET jobs = jobs - 1 WHERE queue = OLD.queue AND type = OLD.type AND state = OLD.state; INSERT INTO llm_job_counts (queue, type, state, jobs) VALUES (NEW.queue, NEW.type, NEW.state, 1) ON CONFLICT DO UPDATE SET jobs = jobs + 1; END
""",
    """
CREATE TRIGGER llm_jobs_uncounted AFTER DELETE ON llm_jobs BEGIN UPDATE llm_job_counts SET jobs = jobs - 1 WHERE queue = OLD.queue AND type = OLD.type AND state = OLD.state; END
""",
    """
CREATE TRIGGER llm_jobs_deleted BEFORE DELETE ON llm_jobs BEGIN INSERT INTO llm_usage_deleted (day, tag, provider, model, calls, input_uncached, cache_read, cache_write, output_visible, output_reasoning, cache_write_1h, cost, unpriced)
        SELECT sent_at / 86400000, coalesce(OLD.tag, ''), provider, model, count(*), coalesce(sum(input_uncached), 0), coalesce(sum(cache_read), 0), coalesce(sum(cache_write), 0), coalesce(sum(output_visible), 0), coalesce(sum(output_reasoning), 0), coalesce(sum(cache_write_1h), 0), sum(cost), sum(cost IS NULL AND state IN ('completed', 'superseded'))
        FROM llm_calls WHERE job_id = OLD.id GROUP BY 1, provider, model
        ON CONFLICT DO UPDATE SET calls = calls + excluded.calls, input_uncached = input_uncached + excluded.input_uncached, cache_read = cache_read + excluded.cache_read, cache_write = cache_write + excluded.cache_write, output_visible = output_visible + excluded.output_visible, output_reasoning = output_reasoning + excluded.output_reasoning, cache_write_1h = cache_write_1h + excluded.cache_write_1h, unpriced = unpriced + excluded.unpriced, cost = coalesce(cost + excluded.cost, cost, excluded.cost); END
""",
    """
CREATE TRIGGER llm_jobs_epoch AFTER UPDATE OF lease_epoch ON llm_jobs WHEN NEW.lease_epoch < OLD.lease_epoch
        BEGIN SELECT RAISE(ABORT, 'llm_jobs.lease_epoch never falls'); END
""",
    """
CREATE TRIGGER llm_turns_added AFTER INSERT ON llm_jobs WHEN NEW.conversation_id IS NOT NULL
        BEGIN INSERT INTO llm_job_transitions (job_id, from_state, to_state, at, epoch, attempt, actor, reason) VALUES (NEW.id, NULL, CASE WHEN (NEW.state = 'delayed' OR NEW.state = 'waiting' OR NEW.state = 'waiting_children') THEN NEW.state
        ELSE RAISE(ABORT, 'llm_jobs.state: a job is added as waiting, delayed or waiting_children') END,
        NEW.created_at, NEW.lease_epoch, NEW.attempt, NEW.changed_by, NEW.reason); INSERT INTO llm_job_counts (queue, type, state, jobs) VALUES (NEW.queue, NEW.type, NEW.state, 1) ON CONFLICT DO UPDATE SET jobs = jobs + 1; DELETE FROM llm_job_edges WHERE job_id = NEW.id AND step = '@turn';
        INSERT INTO llm_job_edges (job_id, depends_on, step, policy)
        SELECT NEW.id, tail.id, '@turn', CASE json_extract(settings, '$.on_failed') WHEN 'block' THEN 'fail' ELSE 'ignore' END
        FROM llm_conversations AS c JOIN llm_jobs AS tail ON tail.id = (
            SELECT id FROM llm_jobs WHERE conversation_id = NEW.conversation_id AND conversation_id IS NOT NULL AND (state = 'waiting' OR state = 'delayed' OR state = 'waiting_children' OR state = 'active') AND id <> NEW.id AND NOT EXISTS (
                SELECT 1 FROM llm_job_edges WHERE depends_on = llm_jobs.id AND state = 'open' AND step = '@turn')
            ORDER BY id DESC LIMIT 1)
        WHERE c.id = NEW.conversation_id AND NOT EXISTS (
            SELECT 1 FROM llm_job_edges WHERE depends_on = NEW.id AND state = 'open' AND step = '@turn');
        UPDATE llm_jobs SET pending = pending + 1, state = CASE state WHEN 'waiting' THEN 'waiting_children' ELSE state END,
        reason = 'an earlier turn of its conversation comes first' WHERE id = NEW.id AND EXISTS (
            SELECT 1 FROM llm_job_edges WHERE job_id = NEW.id AND state = 'open' AND step = '@turn'); END
""",
    """
CREATE TRIGGER llm_turns_sent_back AFTER UPDATE OF state ON llm_jobs WHEN NEW.conversation_id IS NOT NULL AND (OLD.state = 'cancelled' OR OLD.state = 'completed' OR OLD.state = 'failed') AND NOT (NEW.state = 'cancelled' OR NEW.state = 'completed' OR NEW.state = 'failed')
        BEGIN INSERT INTO llm_job_transitions (job_id, from_state, to_state, at, epoch, attempt, actor, reason) VALUES (NEW.id, OLD.state, CASE WHEN CASE OLD.state WHEN 'waiting' THEN (NEW.state = 'active' OR NEW.state = 'cancelled' OR NEW.state = 'delayed' OR NEW.state = 'failed' OR NEW.state = 'waiting_children') WHEN 'delayed' THEN (NEW.state = 'cancelled' OR NEW.state = 'failed' OR NEW.state = 'waiting' OR NEW.state = 'waiting_children') WHEN 'waiting_children' THEN (NEW.state = 'cancelled' OR NEW.state = 'failed' OR NEW.state = 'waiting') WHEN 'active' THEN (NEW.state = 'cancelled' OR NEW.state = 'completed' OR NEW.state = 'delayed' OR NEW.state = 'failed' OR NEW.state = 'waiting' OR NEW.state = 'waiting_children') WHEN 'failed' THEN (NEW.state = 'waiting' OR NEW.state = 'waiting_children') WHEN 'cancelled' THEN (NEW.state = 'waiting' OR NEW.state = 'waiting_children') ELSE 0 END THEN NEW.state
        ELSE RAISE(ABORT, 'llm_jobs.state: illegal transition') END,
        NEW.updated_at, NEW.lease_epoch, NEW.attempt, NEW.changed_by, NEW.reason); UPDATE llm_job_counts SET jobs = jobs - 1 WHERE queue = OLD.queue AND type = OLD.type AND state = OLD.state; INSERT INTO llm_job_counts (queue, type, state, jobs) VALUES (NEW.queue, NEW.type, NEW.state, 1) ON CONFLICT DO UPDATE SET jobs = jobs + 1; DELETE FROM llm_job_edges WHERE job_id = NEW.id AND step = '@turn';
        INSERT INTO llm_job_edges (job_id, depends_on, step, policy)
        SELECT NEW.id, tail.id, '@turn', CASE json_extract(settings, '$.on_failed') WHEN 'block' THEN 'fail' ELSE 'ignore' END
        FROM llm_conversations AS c JOIN llm_jobs AS tail ON tail.id = (
            SELECT id FROM llm_jobs WHERE conversation_id = NEW.conversation_id AND conversation_id IS NOT NULL AND (state = 'waiting' OR state = 'delayed' OR state = 'waiting_children' OR state = 'active') AND id <> NEW.id AND NOT EXISTS (
                SELECT 1 FROM llm_job_edges WHERE depends_on = llm_jobs.id AND state = 'open' AND step = '@turn')
            ORDER BY id DESC LIMIT 1)
        WHERE c.id = NEW.conversation_id AND NOT EXISTS (
            SELECT 1 FROM llm_job_edges WHERE depends_on = NEW.id AND state = 'open' AND step = '@turn');
        UPDATE llm_jobs SET pending = (SELECT count(*) FROM llm_job_edges WHERE job_id = NEW.id AND state = 'open'), state = CASE state WHEN 'waiting' THEN 'waiting_children' ELSE state END,
        reason = 'an earlier turn of its conversation comes first' WHERE id = NEW.id AND EXISTS (
            SELECT 1 FROM llm_job_edges WHERE job_id = NEW.id AND state = 'open' AND step = '@turn');
        UPDATE llm_jobs SET pending = (SELECT count(*) FROM llm_job_edges WHERE job_id = NEW.id AND state = 'open') WHERE id = NEW.id AND pending <> (SELECT count(*) FROM llm_job_edges WHERE job_id = NEW.id AND state = 'open'); END
""",
    """
CREATE TRIGGER llm_turns_left AFTER UPDATE OF state ON llm_jobs
        WHEN NEW.conversation_id IS NOT NULL AND (NEW.state = 'cancelled' OR NEW.state = 'completed' OR NEW.state = 'failed') AND NOT (OLD.state = 'cancelled' OR OLD.state = 'completed' OR OLD.state = 'failed') BEGIN UPDATE OR IGNORE llm_job_edges SET depends_on = (SELECT depends_on FROM llm_job_edges WHERE job_id = NEW.id AND state = 'open' AND step = '@turn')
        WHERE depends_on = NEW.id AND state = 'open' AND step = '@turn' AND EXISTS (SELECT depends_on FROM llm_job_edges WHERE job_id = NEW.id AND state = 'open' AND step = '@turn');
        UPDATE llm_job_edges SET state = 'moot' WHERE job_id = NEW.id AND state = 'open' AND step = '@turn'; END
""",
    """
CREATE TRIGGER llm_turns_deleted BEFORE DELETE ON llm_jobs WHEN OLD.conversation_id IS NOT NULL BEGIN UPDATE OR IGNORE llm_job_edges SET depends_on = (SELECT depends_on FROM llm_job_edges WHERE job_id = OLD.id AND state = 'open' AND step = '@turn')
        WHERE depends_on = OLD.id AND state = 'open' AND step = '@turn' AND EXISTS (SELECT depends_on FROM llm_job_edges WHERE job_id = OLD.id AND state = 'open' AND step = '@turn'); END
""",
    """
CREATE TRIGGER llm_turns_stay AFTER UPDATE OF conversation_id ON llm_jobs WHEN NEW.conversation_id IS NOT NULL
        BEGIN SELECT RAISE(ABORT, 'llm_jobs.conversation_id: a job is added to a conversation or never is in it'); END
""",
    """
CREATE TRIGGER llm_budget_reserved AFTER INSERT ON llm_budget_reservations BEGIN
        INSERT INTO llm_budget_usage (budget, period, reserved, tokens_reserved, updated_at)
        VALUES (NEW.budget, NEW.period, NEW.amount, NEW.tokens, coalesce((SELECT sent_at FROM llm_calls WHERE id = NEW.call_id), 0))
        ON CONFLICT DO UPDATE SET reserved = reserved + excluded.reserved, tokens_reserved = tokens_reserved + excluded.tokens_reserved; END
""",
    """
CREATE TRIGGER llm_budget_settled AFTER UPDATE OF amount, tokens ON llm_budget_reservations BEGIN
        UPDATE llm_budget_usage SET reserved = reserved + NEW.amount - OLD.amount, tokens_reserved = tokens_reserved + NEW.tokens - OLD.tokens
        WHERE budget = NEW.budget AND period = NEW.period; END
""",
    """
CREATE TRIGGER llm_budget_spent AFTER DELETE ON llm_budget_reservations BEGIN
        UPDATE llm_budget_usage SET reserved = reserved - OLD.amount, spent = spent + OLD.amount,
            tokens_reserved = tokens_reserved - OLD.tokens, tokens_spent = tokens_spent + OLD.tokens
        WHERE budget = OLD.budget AND period = OLD.period; END
""",
    """
CREATE TRIGGER llm_budget_forgotten AFTER DELETE ON llm_jobs
        BEGIN DELETE FROM llm_budget_usage WHERE budget = 'job:' || OLD.id; END
""",
    """
CREATE TRIGGER llm_batches_left AFTER UPDATE OF state ON llm_jobs
        WHEN NEW.type = '@batch' AND (NEW.state = 'cancelled' OR NEW.state = 'failed')
        BEGIN UPDATE llm_calls SET state = 'unknown', finished_at = NEW.updated_at WHERE state = 'open' AND id IN (
            SELECT call_id FROM llm_batches AS batch CROSS JOIN llm_batch_requests AS request ON request.batch_id = batch.id
            WHERE batch.job_id = NEW.id AND call_id IS NOT NULL); END
""",
    """
CREATE VIEW llm_inbox AS
        SELECT job.id, job.type, body.data, job.model, job.queue, job.priority, job."key", job.unique_key, job.tag, body.description, job.run_at,
            job.start_by, job.max_attempts, job.group_key, job.group_limit, job.requires, conversation.name AS conversation, body.options
        FROM llm_jobs AS job JOIN llm_job_data AS body ON body.job_id = job.id
        LEFT JOIN llm_conversations AS conversation ON conversation.id = job.conversation_id
""",
    """
CREATE TRIGGER llm_inbox_added INSTEAD OF INSERT ON llm_inbox
        WHEN NOT EXISTS (SELECT 1 FROM llm_jobs WHERE "key" = NEW."key" AND "key" IS NOT NULL)
        AND NOT EXISTS (SELECT 1 FROM llm_jobs WHERE unique_key = NEW.unique_key AND unique_key IS NOT NULL AND (state = 'waiting' OR state = 'delayed' OR state = 'waiting_children' OR state = 'active'))
        BEGIN
        INSERT INTO llm_conversations (name) SELECT NEW.conversation WHERE NEW.conversation IS NOT NULL
            AND NOT EXISTS (SELECT 1 FROM llm_conversations WHERE name = NEW.conversation);
        INSERT INTO llm_jobs (type, model, queue, priority, "key", unique_key, tag, state, run_at, start_by, max_attempts,
            group_key, group_limit, requires, conversation_id, created_at, updated_at, changed_by)
        SELECT NEW.type, NEW.model, coalesce(NEW.queue, 'default'), coalesce(NEW.priority, 0), NEW."key", NEW.unique_key, NEW.tag,
            CASE WHEN NEW.run_at > at THEN 'delayed' ELSE 'waiting' END, CASE WHEN NEW.run_at > at THEN NEW.run_at END, NEW.start_by,
            coalesce(NEW.max_attempts, 3), NEW.group_key, NEW.group_limit, NEW.requires,
            (SELECT id FROM llm_conversations WHERE name = NEW.conversation), at, at, 'sql'
        FROM (SELECT CAST(ROUND((julianday('now') - 2440587.5) * 86400000) AS INTEGER) AS at);
        INSERT INTO llm_job_data (job_id, description, data, options)
        VALUES (last_insert_rowid(), NEW.description, coalesce(NEW.data, '{}'), coalesce(NEW.options, '{}'));
        END
""",
)

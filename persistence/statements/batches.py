"""Requests that go out together: joining a batch, moving it on, what comes back, and the list of them. Compiled ahead of time into `sql_text`; the functions are in `persistence.batches`."""

from sqlalchemy import text

from ..model import USAGE_COLUMNS

# The newest, because a batch that is full stays open until its job has come to seal it. One whose job was cancelled or failed leaves no more.
OPEN = text("""
    SELECT id, job_id, requests, bytes, tokens FROM llm_batches AS batch
    WHERE group_key = :group_key AND state = 'open' AND EXISTS (SELECT 1 FROM llm_jobs AS driver
        WHERE driver.id = batch.job_id AND (driver.state = 'delayed' OR driver.state = 'waiting' OR driver.state = 'active'))
    ORDER BY id DESC LIMIT 1
    """)
CREATE = text("""
    INSERT INTO llm_batches (job_id, kind, provider, group_key, endpoint, state, tag, created_at, updated_at)
    VALUES (:driver, :kind, :provider, :group_key, :endpoint, :state, :tag, :now, :now) RETURNING id
    """)
GROW = text("""
    UPDATE llm_batches SET requests = requests + :requests, bytes = bytes + :bytes, tokens = tokens + :tokens, updated_at = :now WHERE id = :batch
    """)
REQUEST = text("""
    INSERT INTO llm_batch_requests (batch_id, job_id, step, model, provider_model, inputs, fingerprint, limit_key, bytes, tokens, reserved_cost,
        deadline, at)
    VALUES (:batch, :job_id, :step, :model, :provider_model, :inputs, :fingerprint, :limit_key, :bytes, :tokens, :reserved_cost, :deadline, :now)
    RETURNING id
    """)
BODY = text("INSERT INTO llm_batch_bodies (request_id, request) VALUES (:request_id, :request)")
FORGET_BODY = text("DELETE FROM llm_batch_bodies WHERE request_id = :request_id")
# Asked for anew, whatever became of the batch it was in: whoever cancelled that one's job, for instance.
SUPERSEDE = text("""
    UPDATE llm_batch_requests SET state = 'left' WHERE job_id = :job_id AND step = :step AND (state = 'waiting' OR state = 'sent')
    """)
PARK = text("""
    UPDATE llm_jobs SET state = 'waiting_children', lease_epoch = lease_epoch + 1, lease_owner = NULL, lease_until = NULL, alone = 0,
        start_by = NULL, pending = :requests, reason = :reason, updated_at = :now, changed_by = :actor
    WHERE id = :job_id AND lease_epoch = :epoch AND state = 'active'
    """)
# The job that drives a batch is due no later than this, and goes before those it brings together.
HASTEN = text("""
    UPDATE llm_jobs SET priority = max(priority, min(1000000000, :priority + 1)), run_at = CASE WHEN state = 'delayed' THEN min(run_at, :run_at) END
    WHERE id = :driver AND (state = 'delayed' OR state = 'waiting')
    """)
PRIORITY = text("SELECT priority FROM llm_jobs WHERE id = :job_id")

# --- the job that drives a batch -----------------------------------------------------------------------------------------------------------

# It has moved on: that it was being worked on when its process died says nothing against it.
UNSUSPECT = text("UPDATE llm_jobs SET losses = 0 WHERE id = :driver AND losses > 0")
BATCH = text("""
    SELECT id, job_id, kind, provider, group_key, endpoint, state, requests, bytes, tokens, tag, sha256, file_id, batch_id, results, offset, polls,
           created_at, creating_at, submitted_at, error
    FROM llm_batches WHERE job_id = :driver ORDER BY id DESC LIMIT 1
    """)
MOVE = text("""
    UPDATE llm_batches SET state = :state, sha256 = coalesce(:sha256, sha256), requests = coalesce(:requests, requests), file_id = coalesce(:file_id, file_id),
        batch_id = coalesce(:batch_id, batch_id), results = coalesce(:results, results), offset = coalesce(:offset, offset),
        polls = coalesce(:polls, polls), error = coalesce(:error, error), updated_at = :now,
        sealed_at = CASE WHEN :state = 'sealed' AND sealed_at IS NULL THEN :now ELSE sealed_at END,
        creating_at = CASE WHEN :state = 'creating' AND state <> 'creating' THEN :now ELSE creating_at END,
        submitted_at = CASE WHEN :state = 'submitted' AND submitted_at IS NULL THEN :now ELSE submitted_at END,
        ended_at = CASE WHEN :state = 'ended' AND ended_at IS NULL THEN :now ELSE ended_at END
    WHERE id = :batch
    """)
# A member whose job no longer waits for it: cancelled, deleted, or failed for another reason.
DROP_GONE = text("""
    UPDATE llm_batch_requests SET state = 'left' WHERE batch_id = :batch AND (state = 'waiting' OR state = 'sent') AND NOT EXISTS (
        SELECT 1 FROM llm_job_edges AS edge WHERE edge.job_id = llm_batch_requests.job_id AND edge.depends_on = :driver
        AND edge.step = '@batch:' || llm_batch_requests.id AND edge.state = 'open')
    """)
RECOUNT = text("""
    UPDATE llm_batches SET (requests, bytes, tokens) = (
        SELECT count(*), coalesce(sum(bytes), 0), coalesce(sum(tokens), 0) FROM llm_batch_requests
        WHERE batch_id = :batch AND (state = 'waiting' OR state = 'sent')
    ) WHERE id = :batch
    """)
# Only these with the requests themselves, which may be large.
MEMBERS = text("""
    SELECT member.id, job_id, step, state, model, provider_model, tokens, call_id, bytes, request
    FROM llm_batch_requests AS member CROSS JOIN llm_batch_bodies AS body ON body.request_id = member.id
    WHERE batch_id = :batch AND state = :state AND member.id > :after ORDER BY member.id LIMIT :limit + 0
    """)
MEMBER = text("""
    SELECT id, job_id, step, state, model, provider_model, tokens, call_id, bytes
    FROM llm_batch_requests WHERE id = :request AND batch_id = :batch
    """)
FIND = text("""
    SELECT request.id, request.job_id, request.model, request.inputs
    FROM json_each(:ids) AS wanted CROSS JOIN llm_batch_requests AS request ON request.id = wanted.value WHERE request.batch_id = :batch
    """)
LIVE = text("SELECT count(*) FROM llm_batch_requests WHERE batch_id = :batch AND (state = 'waiting' OR state = 'sent')")
END_REQUEST = text("UPDATE llm_batch_requests SET state = :state, error = :error WHERE id = :request")
UNINTENDED = text("""
    SELECT id, job_id, step, model, fingerprint, limit_key, tokens, reserved_cost, provider_model, deadline FROM llm_batch_requests
    WHERE batch_id = :batch AND state = 'waiting' AND call_id IS NULL ORDER BY id LIMIT :limit + 0
    """)
# The call is its job's: what it cost, it cost this job. Under a limit key of its own, because online limits do not count batches.
INTENT = text("""
    INSERT INTO llm_calls (job_id, epoch, attempt, step, fingerprint, provider, model, limit_key, state, reserved_tokens, reserved_cost, sent_at,
        requests, origin)
    SELECT id, lease_epoch, attempt, :step, :fingerprint, :provider, :provider_model, 'batch:' || :limit_key, 'open', :tokens, :reserved_cost, :now,
        0, 'batch'
    FROM llm_jobs WHERE id = :job_id RETURNING id
    """)
# It waits for a budget, and joins another batch then.
HOLD = text("""
    UPDATE llm_jobs SET held_by = :held_by, held_until = :until, deferrals = deferrals + 1, reason = :reason, updated_at = :now, changed_by = :actor
    WHERE id = :job_id AND state = 'waiting'
    """)
FORGET_HELD = text("""
    DELETE FROM llm_batch_requests WHERE job_id = :job_id AND step = :step AND state = 'again' AND json_extract(error, '$.class') = 'budget'
    """)
INTENDED = text("UPDATE llm_batch_requests SET call_id = :call_id, state = 'sent' WHERE id = :request")
CALL = text("SELECT job_id, epoch FROM llm_calls WHERE id = :call_id")
EDGE_OPEN = text("""
    SELECT 1 FROM llm_job_edges WHERE job_id = :job_id AND depends_on = :driver AND step = :step AND state = 'open'
    """)
# What the provider may still answer: also the requests whose jobs went on without them.
UNANSWERED = text("""
    SELECT id, job_id, step, state, model, provider_model, tokens, call_id, bytes FROM llm_batch_requests
    WHERE batch_id = :batch AND (state = 'waiting' OR state = 'sent' OR (state = 'left' AND call_id IS NOT NULL AND EXISTS (
        SELECT 1 FROM llm_calls WHERE llm_calls.id = call_id AND llm_calls.state = 'open')))
    ORDER BY id LIMIT :limit + 0
    """)
LATE = text("""
    SELECT id, job_id, step, state, model, provider_model, tokens, call_id, bytes FROM llm_batch_requests
    WHERE batch_id = :batch AND (state = 'waiting' OR state = 'sent') AND deadline <= :until ORDER BY id LIMIT :limit + 0
    """)
NEXT_DEADLINE = text("""
    SELECT min(deadline) FROM llm_batch_requests WHERE batch_id = :batch AND (state = 'waiting' OR state = 'sent')
    """)
# The durations of the latest answered calls that were made one by one, in milliseconds.
LATENCIES = text("""
    SELECT finished_at - sent_at FROM (
        SELECT finished_at, sent_at FROM llm_calls WHERE provider = :provider AND state = 'completed' AND origin IS NULL ORDER BY id DESC LIMIT 200
    ) ORDER BY 1
    """)
# Batches of this provider that are accounted for.
KNOWN = text(
    "SELECT batch_id FROM llm_batches WHERE provider = :provider AND batch_id IS NOT NULL AND created_at >= :since"
)

# --- a batch that was refused is divided ---------------------------------------------------------------------------------------------------

PART = text("""
    SELECT id, job_id, step, state, model, provider_model, tokens, call_id, bytes FROM llm_batch_requests WHERE batch_id = :batch AND (state = 'waiting' OR state = 'sent') ORDER BY id LIMIT :limit + 0
    """)
MOVE_REQUEST = text(
    "UPDATE llm_batch_requests SET batch_id = :target, state = 'waiting', call_id = NULL WHERE id = :request"
)
MOVE_EDGE = text("""
    UPDATE llm_job_edges SET depends_on = :driver WHERE job_id = :job_id AND depends_on = :old AND step = :step AND state = 'open'
    """)

# --- texts that are embedded together ------------------------------------------------------------------------------------------------------

# Whether there is anybody to wait for: of the jobs of a type, those that wait or are worked on.
COMPANY = text("""
    SELECT coalesce(sum(jobs), 0) FROM llm_job_counts WHERE type = :type AND (state = 'waiting' OR state = 'active')
    """)
# Waiting jobs like those of the batch (of the same lane), that were never begun and may be begun now. The order of the joins is ours. Whoever
# has an epoch was begun, or adopted: it is to be given its memo.
ALIKE = text("""
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
    """)
ADOPT = text("""
    UPDATE llm_jobs SET state = 'waiting_children', lease_epoch = lease_epoch + 1, pending = pending + 1, start_by = NULL, held_by = NULL, held_until = NULL, reason = :reason,
        updated_at = :now, changed_by = :actor
    WHERE id = :job_id AND state = 'waiting' AND lease_epoch = 0
    """)
# A member's part of the answer, and what it used. The request itself, and what it was charged to its limit, stay with the driver's call.
SHARE = text("""
    INSERT INTO llm_calls (job_id, epoch, attempt, step, fingerprint, provider, model, limit_key, state, reserved_tokens, sent_at, finished_at,
        requests, origin, input_uncached, cost, price_id)
    SELECT :job_id, member.lease_epoch, member.attempt, :step, :fingerprint, one.provider, one.model, 'group:' || one.limit_key, 'completed', 0, one.sent_at, :now,
        0, 'group', :tokens, :cost, one.price_id
    FROM llm_calls AS one CROSS JOIN llm_jobs AS member ON member.id = :job_id
    WHERE one.id = :call_id AND NOT EXISTS (
        SELECT 1 FROM llm_calls AS first WHERE first.job_id = :job_id AND first.step = :step AND first.state = 'completed')
    RETURNING id
    """)
GROUP_CALL = text(f"""
    SELECT id, {" + ".join(f"coalesce({name}, 0)" for name in USAGE_COLUMNS)}, cost
    FROM llm_calls WHERE job_id = :driver AND step = :step AND state = 'completed' AND origin IS NOT 'group'
    """)
FINGERPRINT = text("SELECT fingerprint FROM llm_batch_requests WHERE id = :request")
SHARED_OUT = text(f"""
    UPDATE llm_calls SET {", ".join(f"{name} = NULL" for name in USAGE_COLUMNS)}, cost = CASE WHEN cost IS NOT NULL THEN 0 END, origin = 'group'
    WHERE id = :call_id
    """)
FORGET_ANSWER = text("DELETE FROM llm_call_completions WHERE call_id = :call_id")

# --- what a job's next attempt needs to know, and lists -------------------------------------------------------------------------------------

# A refusal is told until a person has sent the job back: then it is to be tried again.
PAST = text("""
    SELECT request.job_id, request.step, sum(request.state <> 'again' OR json_extract(request.error, '$.class') IS NOT 'budget'), max(request.state = 'left' AND request.error IS NOT NULL),
        max(CASE WHEN request.state = 'failed' AND NOT EXISTS (
            SELECT 1 FROM llm_job_transitions AS log WHERE log.job_id = request.job_id AND log.at >= request.at
            AND (log.from_state = 'failed' OR log.from_state = 'cancelled')
        ) THEN request.error END)
    FROM json_each(:ids) AS wanted CROSS JOIN llm_batch_requests AS request ON request.job_id = wanted.value
    WHERE request.state <> 'done' GROUP BY request.job_id, request.step
    """)
LIST = text("""
    SELECT batch.id, batch.job_id, batch.kind, batch.provider, batch.endpoint, batch.state, job.state, batch.requests, batch.batch_id, batch.created_at,
        batch.submitted_at, batch.ended_at, batch.updated_at, batch.polls, job.run_at, job.held_until, job.reason, batch.error,
        (SELECT json_group_object(state, n) FROM (
            SELECT state, count(*) AS n FROM llm_batch_requests WHERE llm_batch_requests.batch_id = batch.id GROUP BY state))
    FROM llm_batches AS batch JOIN llm_jobs AS job ON job.id = batch.job_id
    WHERE (:every OR (batch.state <> 'applied' AND batch.state <> 'failed')) ORDER BY batch.id DESC LIMIT :limit + 0
    """)
OF_JOB = text("""
    SELECT request.step, request.state, batch.id, batch.job_id, batch.kind, batch.provider, batch.state, batch.batch_id, batch.requests, request.error
    FROM llm_batch_requests AS request JOIN llm_batches AS batch ON batch.id = request.batch_id WHERE request.job_id = :job_id ORDER BY request.id
    """)

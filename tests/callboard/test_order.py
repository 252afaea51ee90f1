"""A company with runner groups, paused queues and groups of jobs: what is run by whom, and what is not run and says why."""

import threading
from collections import Counter

from callboard.actors.roster import Roster, runner_groups
from callboard.actors.settings import AgeingSettings, ClaimSettings, GroupSettings, RunnerSettings
from callboard.persistence.lifecycle import JobState

KINDS = ("plain", "ocr", "embed")
GROUPS = {
    "gpu": GroupSettings(runners=2, tags=("gpu",)),
    "eyes": GroupSettings(runners=2, tags=("gpu", "vision"), types=("ocr",)),
    "text": GroupSettings(runners=1, types=("plain",), queues=("default",)),
}


def handlers(perform=lambda _: None):
    return dict.fromkeys(KINDS, perform)


def test_three_capability_groups_and_three_hundred_mixed_jobs_none_run_by_the_incapable(stage):
    runners = RunnerSettings(min=1, max=5, idle_timeout=30)
    supervisor = stage.company(handlers(), groups=GROUPS, runners=runners)
    mix = [
        ("plain", []),
        ("plain", ["gpu"]),
        ("ocr", ["vision"]),
        ("ocr", ["gpu", "vision"]),
        ("ocr", []),
        ("embed", []),
    ]
    ids = stage.queue.add_many(
        {"type": kind, "requires": requires, "queue": ("default", "night")[n % 2]}
        for n in range(50)
        for kind, requires in mix
    )
    roster = Roster(runner_groups(stage.config(groups=GROUPS, runners=runners)))
    capable = {group.name: group for group in roster.groups}
    done_by = Counter()
    for job_id in ids:
        job = stage.queue.get(job_id)
        row = stage.done(job)
        group = capable[roster.group_of(job.transitions()[-1].actor)]
        assert group.tags.issuperset(row.requires.split(",") if row.requires else ())
        assert group.types is None or row.type in group.types
        assert group.queues is None or row.queue in group.queues
        done_by[group.name] += 1
    assert done_by.keys() == GROUPS.keys()
    assert supervisor.status().unroutable == {}


def test_what_no_runner_can_do_is_unroutable_and_is_done_when_a_capable_worker_comes(stage):
    job = stage.queue.add("plain", requires=["gpu"])
    other = stage.queue.add("plain")
    first = stage.company(handlers(), claims=ClaimSettings(tags=("vision",)))
    stage.done(other)
    stage.until(lambda: stage.queue.row(job.id).held_by)
    assert stage.queue.why(job) == "no worker takes it: unroutable: no runner here has 'gpu' (tags here: vision)"
    assert first.status().unroutable == {"default|plain||gpu": "no runner here has 'gpu' (tags here: vision)"}
    assert job.state == JobState.WAITING
    stage.queue.pause("default")
    stage.company(handlers(), claims=ClaimSettings(tags=("gpu",)))
    stage.until(lambda: stage.queue.row(job.id).held_by is None, "the note to be taken off")
    stage.queue.resume("default")
    stage.done(job)


def test_a_worker_leaves_to_others_what_it_is_not_to_claim(stage):
    supervisor = stage.company(handlers(), claims=ClaimSettings(types=("ocr",), queues=("day",)))
    left = [stage.queue.add("plain", queue="day"), stage.queue.add("ocr")]
    stage.done(stage.queue.add("ocr", queue="day"))
    stage.until(lambda: set(supervisor.status().elsewhere) == {"day|plain||", "default|ocr||"})
    assert [job.state for job in left] == [JobState.WAITING] * 2
    assert [stage.queue.row(job.id).held_by for job in left] == [None, None]


def test_a_paused_queue_stands_still_and_goes_on(stage):
    started, release = threading.Event(), threading.Event()

    def hold(_):
        started.set()
        release.wait(20)

    supervisor = stage.company(handlers(hold))
    running = stage.queue.add("plain", queue="night")
    assert started.wait(20)
    stage.queue.pause("night")
    waiting = stage.queue.add("plain", queue="night")
    release.set()
    stage.done(running)
    stage.done(stage.queue.add("plain"))
    stage.until(lambda: supervisor.status().settled and supervisor.status().paused == ("night|plain||",))
    assert waiting.state == JobState.WAITING
    stage.queue.resume("night")
    stage.done(waiting)


def test_a_group_is_never_over_its_limit_and_its_next_job_follows_at_once(stage):
    lock, now, most = threading.Lock(), Counter(), Counter()

    def perform(context):
        name = context.job.group
        with lock:
            now[name] += 1
            most[name] = max(most[name], now[name])
        context.progress(50)
        with lock:
            now[name] -= 1

    for _ in range(2):
        stage.company(handlers(perform), runners=RunnerSettings(min=4, max=4))
    ids = stage.queue.add_many(
        {"type": "plain", "group": group, "group_limit": limit}
        for _ in range(30)
        for group, limit in (("one", 1), ("two", 2))
    )
    for job_id in ids:
        assert stage.done(stage.queue.get(job_id)).state == JobState.COMPLETED
    assert most["one"] == 1
    assert most["two"] <= 2


def test_a_company_lets_jobs_age(stage):
    stage.queue.pause("default")
    job = stage.queue.add("plain")
    stage.company(handlers(), ageing=AgeingSettings(after=0.01, step=7, every=3600))
    stage.until(lambda: stage.queue.row(job.id).boost == 7)

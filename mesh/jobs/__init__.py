"""Work that must happen later: job rows written in the transaction of the fact that caused them.

`enqueue` adds a row to the service's own `jobs` table inside the caller's transaction, so a job exists exactly when its
fact does. A trigger sends a NOTIFY, and a `Worker` of the same service claims what is due with `FOR UPDATE SKIP
LOCKED`, so any number of workers share one table without waiting for each other.

A job runs at least once: whoever handles it must be safe to run twice, and calls other services with the job's id as
the idempotency key. A claimed job is leased; the worker extends the lease while it runs and a job whose lease has run
out (its worker died) is claimed again. A failed job is tried again later, twice as late each time with full jitter, and
after `ATTEMPTS_MAX` attempts, or at once on `PermanentFailure`, it becomes a dead letter: it stays in the table with
its last error, is counted by a metric, and `dead_letters` lists it and puts it back.

`Daily` work needs no scheduler of its own: every worker tries to add today's job under the day as its dedupe key, and
the unique constraint lets one of them.
"""

from __future__ import annotations

from mesh.jobs.queue import Job, PermanentFailure, dead_letters, enqueue, remove_finished, retry_dead_letter
from mesh.jobs.worker import Daily, Handler, RetryPolicy, Worker

__all__ = [
    "Daily",
    "Handler",
    "Job",
    "PermanentFailure",
    "RetryPolicy",
    "Worker",
    "dead_letters",
    "enqueue",
    "remove_finished",
    "retry_dead_letter",
]

"""Pykka made supervisable: actors, mailboxes, timers and schedulers that know nothing of jobs."""

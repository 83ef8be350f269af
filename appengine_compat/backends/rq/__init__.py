"""Redis and RQ: each task is a job in the RQ queue of its name, and its attempts are RQ's runs.

A job holds the HTTP request that Cloud Tasks would send. Whoever works it, ``appengine-compat
rq-worker`` or a plain ``rq worker --with-scheduler``, calls ``attempts.deliver``, which sends the
request and decides by the rules of Cloud Tasks what its reply means.

What RQ keeps is RQ's: the job, the queue's list, the scheduled, started and failed registries. What
Cloud Tasks has and RQ has not is kept beside it, under ``appengine-compat:`` and in fields of the
job's own hash that begin with ``aec_`` (RQ reads and writes fields by name, and leaves these):

- a queue's settings and tokens, which every program that enqueues writes down, so that workers need
  no queue.yaml, and one rate holds for all of them;
- which tasks are running, so that a limit on concurrency holds across workers;
- names that stay reserved;
- a task's attempts, and whether it is done: a job that RQ runs once more because the worker died
  between the reply and the bookkeeping is seen to be done, and not sent again.

Every change of these is one Lua script, and so happens whole or not at all. Before an attempt the
script ``begin`` is asked; when it is not the task's turn, it tells how long to wait. Short waits
(less than RQ's scheduler can measure) are slept in the worker, longer ones go through the scheduled
registry by returning ``rq.Retry``. A failed attempt raises, so that RQ counts it as failed, after
having told RQ in the job's own retry fields when to run it next, or that it is spent.
"""

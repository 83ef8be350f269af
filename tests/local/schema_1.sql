-- All times are integer microseconds since the epoch.

CREATE TABLE meta (
    key TEXT PRIMARY KEY,
    value BLOB NOT NULL
) WITHOUT ROWID;

CREATE TABLE queues (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    name TEXT NOT NULL UNIQUE,
    state TEXT NOT NULL,
    settings TEXT NOT NULL,
    purge_time INTEGER
);

-- Queue names that may not be used again yet.
CREATE TABLE deleted_queues (
    name TEXT PRIMARY KEY,
    expires INTEGER NOT NULL
) WITHOUT ROWID;

-- Apart from the settings, because each dispatch writes it.
CREATE TABLE buckets (
    queue INTEGER PRIMARY KEY,
    tokens REAL NOT NULL,
    updated_at INTEGER NOT NULL
);

-- Which destinations a queue has ever had tasks for: "" is an HTTP target, else a service.
CREATE TABLE lanes (
    queue INTEGER NOT NULL,
    service TEXT NOT NULL,
    PRIMARY KEY (queue, service)
) WITHOUT ROWID;

CREATE TABLE tasks (
    seq INTEGER PRIMARY KEY,
    queue INTEGER NOT NULL,
    id TEXT NOT NULL,
    service TEXT NOT NULL,
    due INTEGER NOT NULL,
    claim INTEGER NOT NULL DEFAULT 0,     -- 0: waiting; else owner * 2^32 + a count
    forced INTEGER NOT NULL DEFAULT 0,    -- when RunTask was called, until it is dispatched
    is_named INTEGER NOT NULL,
    created INTEGER NOT NULL,
    method TEXT NOT NULL,
    url TEXT NOT NULL,
    deadline_ms INTEGER NOT NULL,
    dispatches INTEGER NOT NULL DEFAULT 0,
    responses INTEGER NOT NULL DEFAULT 0,
    executions INTEGER NOT NULL DEFAULT 0,
    first_dispatch INTEGER,
    last_schedule INTEGER,
    last_dispatch INTEGER,
    last_response INTEGER,
    last_status INTEGER,
    headers TEXT NOT NULL,
    extra TEXT,                           -- JSON of what few tasks have: routing, token, retry
    body BLOB                             -- NULL: it is long, and in bodies
);
CREATE UNIQUE INDEX tasks_by_id ON tasks (queue, id);
CREATE INDEX tasks_waiting ON tasks (queue, service, due) WHERE claim = 0;
CREATE INDEX tasks_claimed ON tasks (queue, claim) WHERE claim > 0;
CREATE INDEX tasks_forced ON tasks (seq) WHERE forced > 0;

-- Long bodies, apart so that claiming and rescheduling a task do not move them.
CREATE TABLE bodies (
    task INTEGER PRIMARY KEY,
    body BLOB NOT NULL
);
CREATE TRIGGER bodies_follow AFTER DELETE ON tasks WHEN old.body IS NULL
BEGIN
    DELETE FROM bodies WHERE task = old.seq;
END;

-- Names of tasks that have ended and may not be used again yet.
CREATE TABLE tombstones (
    queue INTEGER NOT NULL,
    id TEXT NOT NULL,
    expires INTEGER NOT NULL,
    PRIMARY KEY (queue, id)
) WITHOUT ROWID;
CREATE INDEX tombstones_by_expiry ON tombstones (expires);

-- Replies per queue and second, for the figure "executed in the last minute".
CREATE TABLE executions (
    queue INTEGER NOT NULL,
    second INTEGER NOT NULL,
    count INTEGER NOT NULL,
    PRIMARY KEY (queue, second)
) WITHOUT ROWID;

-- Processes that dispatch; is_locked tells whether a lock file proves that one lives.
CREATE TABLE owners (
    id INTEGER PRIMARY KEY,
    pid INTEGER NOT NULL,
    services TEXT NOT NULL,
    is_locked INTEGER NOT NULL,
    seen_at INTEGER NOT NULL
);

-- Tasks that failed for good: what is needed to look at them and to run them again.
CREATE TABLE kept (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    queue TEXT NOT NULL,
    task TEXT NOT NULL,
    reason TEXT NOT NULL,
    kept_at INTEGER NOT NULL,
    attempts INTEGER NOT NULL,
    last_status INTEGER,
    service TEXT NOT NULL,
    method TEXT NOT NULL,
    url TEXT NOT NULL,
    headers TEXT NOT NULL,
    extra TEXT,
    body BLOB,
    traceback TEXT
);
CREATE INDEX kept_by_time ON kept (kept_at);

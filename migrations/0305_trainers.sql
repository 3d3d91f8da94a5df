-- depends: 0302_searches
--
-- 0305: who works at the queue. A trainer has no right on the queue's tables: it shows its token, of
-- which only a digest is kept here, and takes and gives back jobs by functions.
create table ml.trainers (
    trainer_id bigint generated always as identity primary key,
    token_digest bytea not null unique,
    worker_id bigint not null unique,
    name text not null,
    login text not null default session_user,
    started_at timestamptz not null default clock_timestamp()
);
comment on table ml.trainers is 'Trainers at the queue; a row goes when its trainer ends or falls silent.';
comment on column ml.trainers.trainer_id is 'Number of the trainer.';
comment on column ml.trainers.token_digest is 'SHA-256 of the token that the trainer shows.';
comment on column ml.trainers.worker_id is 'The queue''s own number of the trainer, with its heartbeat.';
comment on column ml.trainers.name is 'Host and process, as the trainer says.';
comment on column ml.trainers.login is 'The role that it logged in as.';
comment on column ml.trainers.started_at is 'When it came.';

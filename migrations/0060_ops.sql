-- depends: 0030_vectors
--
-- 0060: a run is told from a later one with the same process id by when its backend started.
alter table ops.runs add column backend_start timestamptz;
create index runs_running_idx on ops.runs (schedule) where status = 'running';

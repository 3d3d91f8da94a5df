-- depends: 0332_expected
--
-- 0333: gates on relative gains; histograms in lz4.

alter table ml.gates add column relative boolean not null default false;
comment on column ml.gates.relative is
'Whether the difference to what it is held against is taken as a share of that.';
update ml.gates set relative = true where gate = 'f1_champion';

-- Histograms are mostly small numbers: lz4, where the server has it, costs a fifth of pglz.
do $$
begin
    if exists (
        select from pg_settings s
        where s.name = 'default_toast_compression' and 'lz4' = any (s.enumvals)
    ) then
        alter table drift.histograms alter column counts set compression lz4;
    end if;
end
$$;

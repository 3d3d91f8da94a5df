-- depends: 0191_marks_in_order
--
-- 0220: the pooled champion's row names the symbols that have one of their own, so that who serves a
-- symbol is one row found by looking at each row alone: no sort, no second look, in every
-- prediction by key. ml.cache_status() gets a column.
drop function if exists ml.cache_status();
alter table ml.serving add column others text [] collate "C" not null default '{}';
comment on column ml.serving.others is
'Of the pooled champion (symbol null): the symbols that have a champion of their own.';
comment on table ml.serving is
'The champions without a regime and the feature set their vectors are of, kept by a trigger in the transaction that changes ml.aliases. symbol null: pooled, for all symbols but others.';

create or replace function ml._keep_serving() returns trigger
language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$
declare
    v_gone boolean := tg_op <> 'INSERT' and old.alias = 'champion' and old.regime is null;
    v_comes boolean := tg_op <> 'DELETE' and new.alias = 'champion' and new.regime is null;
    v_model text := case tg_op when 'DELETE' then old.model else new.model end;
begin
    if not (v_gone or v_comes) then
        return null;
    end if;
    -- One change of a model's champions at a time, whatever its symbol (an update, not a lock: under
    -- a snapshot of the whole transaction the later one has to fail).
    update ml.models m set model = m.model where m.model = v_model;
    if v_gone then
        delete from ml.serving s where s.model = old.model and s.symbol is not distinct from old.symbol;
    end if;
    if v_comes then
        insert into ml.serving (model, symbol, set_id, version_id)
        select new.model, new.symbol, s.set_id, v.version_id
        from ml.model_versions v
        join feature.sets s on s.name = v.feature_set and s.version = v.feature_version
        where v.version_id = new.version_id;
    end if;
    update ml.serving p
    set others = array(
        select o.symbol from ml.serving o
        where o.model = p.model and o.symbol is not null
        order by o.symbol
    )
    where p.model = v_model and p.symbol is null;
    return null;
end
$$;

update ml.serving p
set others = array(
    select o.symbol from ml.serving o
    where o.model = p.model and o.symbol is not null
    order by o.symbol
)
where p.symbol is null;

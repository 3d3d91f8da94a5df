-- Labels: what is to be predicted, each declared once with its horizon.
insert into ml.labels (label, task, kind, horizon, params, description)
select
    k.kind || '_' || h.suffix, k.task, k.kind, h.horizon,
    case
        when k.kind = 'liquidation' then '{"quantile": 0.9, "lookback_days": 3, "floor": 0}'::jsonb
        when k.kind = 'volatility' and h.horizon >= interval '1 hour'
            then '{"quantile": 0.8, "lookback_days": 30}'::jsonb
        when k.kind = 'volatility' then '{"quantile": 0.8, "lookback_days": 3}'::jsonb
        else '{}'::jsonb
    end,
    format(k.description, h.horizon)
from (values
    ('liquidation', 'classification', 'Forced-liquidation notional in the next %s exceeds the symbol''s own trailing quantile.'),
    ('liquidation_volume', 'regression', 'Forced-liquidation notional in the next %s, in quote currency.'),
    ('direction', 'classification', 'The close %s later is higher.'),
    ('return', 'regression', 'Log return over the next %s, in basis points.'),
    ('volatility', 'classification', 'Realised volatility of the next %s exceeds the symbol''s own trailing quantile: a burst.')
) as k (kind, task, description)
cross join (values
    ('5m', interval '5 minutes'), ('15m', interval '15 minutes'), ('30m', interval '30 minutes'),
    ('60m', interval '60 minutes'), ('4h', interval '4 hours'), ('24h', interval '24 hours')
) as h (suffix, horizon)
where k.kind not like 'liquidation%' or h.horizon <= interval '1 hour'
on conflict (label) do nothing;

insert into ml.labels (label, task, kind, horizon, description)
select 'order_book_' || k.kind || '_' || h.suffix, 'regression', k.kind, h.horizon,
    format(k.description, h.horizon)
from (values
    ('spread', 'Relative bid-ask spread, mean over the last minute of the next %s, in basis points.'),
    ('imbalance', 'Top-level size imbalance (bid - ask) / (bid + ask), mean over the last minute of the next %s.'),
    ('mid', 'Log change of the mid price from the minute before to the last minute of the next %s, in basis points.')
) as k (kind, description)
cross join (values ('1m', interval '1 minute'), ('5m', interval '5 minutes')) as h (suffix, horizon)
on conflict (label) do nothing;

create or replace function ml._label_rows(
    kind text, horizon bigint, params jsonb, symbol text, step bigint, start bigint, stop bigint,
    as_of bigint
)
returns table (at bigint, label_end bigint, target double precision)
language plpython3u stable parallel restricted set search_path = pg_catalog, pg_temp
as $python$
    from alphaplus.server.training import dataset
    return dataset.label_rows(plpy, GD, kind, horizon, params, symbol, step, start, stop, as_of)
$python$;

create or replace function ml._label_barriers(
    kind text, horizon bigint, params jsonb, symbol text, step bigint, start bigint, stop bigint,
    as_of bigint
)
returns table (
    at bigint, label_end bigint, hit text, return_bps double precision, upper double precision,
    lower double precision
)
language plpython3u stable parallel restricted set search_path = pg_catalog, pg_temp
as $python$
    from alphaplus.server.training import dataset
    return dataset.barriers(plpy, GD, kind, horizon, params, symbol, step, start, stop, as_of)
$python$;

-- A label's SELECT at some times; it belongs to alphaplus_select as feature._set_rows does.
create or replace function ml._label_select(
    symbol text, times bigint [], back bigint, horizon bigint, known_by bigint
)
returns table (at bigint, target double precision)
language plpython3u stable parallel restricted security definer
set search_path = pg_catalog, pg_temp
set timezone = 'UTC'
set datestyle = 'ISO, MDY'
as $python$
    from alphaplus.server.sets import label_query
    return label_query.run(plpy, GD, symbol, times, back, horizon, known_by)
$python$;

create or replace function ml._label_kinds()
returns table (
    kind text, task text, what text, parameter text, type text, standard text,
    low double precision, high double precision, choices text [], meaning text
)
language plpython3u immutable parallel restricted set search_path = pg_catalog, pg_temp
as $python$
    from alphaplus.server.training import dataset
    return dataset.label_kinds()
$python$;

create or replace view ml.label_kinds as
select
    k.kind, k.task, k.what, k.parameter, k.type, k.standard, k.low, k.high, k.choices, k.meaning
from ml._label_kinds() as k;
comment on view ml.label_kinds is
'Kinds of labels that ml.create_label takes, a row for each parameter (one without where a kind has none).';
comment on column ml.label_kinds.kind is 'Name of the kind.';
comment on column ml.label_kinds.task is
'What models of it predict: classification or regression; a parameter may change it, as its meaning says.';
comment on column ml.label_kinds.what is 'What the label is.';
comment on column ml.label_kinds.parameter is 'Name of the parameter; null: the kind has none.';
comment on column ml.label_kinds.type is 'number, choice, text or list of texts.';
comment on column ml.label_kinds.standard is 'Its value where it is left out; null: none.';
comment on column ml.label_kinds.low is 'Smallest number taken.';
comment on column ml.label_kinds.high is 'Greatest number taken.';
comment on column ml.label_kinds.choices is 'The words taken.';
comment on column ml.label_kinds.meaning is 'What it says, with its unit.';

create or replace function ml._label_task(kind text, horizon bigint, params jsonb) returns text
language plpython3u immutable parallel restricted set search_path = pg_catalog, pg_temp
as $python$
    from alphaplus.server.training import dataset
    return dataset.task_of(plpy, kind, horizon, params)
$python$;

create or replace function ml._label_declared(
    kind text, horizon bigint, params jsonb, out task text, out stored jsonb, out what text
)
language plpython3u stable parallel restricted set search_path = pg_catalog, pg_temp
as $python$
    from alphaplus.server.training import dataset
    return dataset.declared(plpy, GD, kind, horizon, params)
$python$;

create or replace function ml._label_is_used(label text) returns boolean
language sql stable parallel safe set search_path = pg_catalog, pg_temp
as $$
    select exists (select from ml.model_versions v where v.label = $1)
$$;

create or replace function ml.create_label(
    name text, kind text default null, horizon interval default null, params jsonb default '{}',
    description text default null, query text default null
)
returns text
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp
as $$
declare
    v_kind constant text := coalesce(kind, case when query is not null then 'select' end);
    v_given jsonb := coalesce(params, '{}');
    v_newest ml.labels;
    v_made record;
    v_label text;
    v_version integer := 1;
begin
    if name is null or name !~ '^[a-z][a-z0-9_]{0,47}$' then
        raise exception 'a label cannot be named %', coalesce(quote_literal(name), 'null')
        using errcode = 'AP226',
            hint = 'Use up to 48 lower-case letters, digits and underscores, beginning with a letter.';
    end if;
    if v_kind is null or query is not null and v_kind <> 'select' then
        raise exception 'a label is of a kind, or has a query'
        using errcode = 'AP227',
            hint = 'select * from ml.label_kinds; or give query => a SELECT of a target, and no kind.';
    end if;
    if query is not null then
        v_given := v_given || jsonb_build_object('query', query);
    end if;
    perform ops._lock('ml.create_label:' || name);
    select d.task, d.stored, d.what into v_made
    from ml._label_declared(v_kind, ops._micros(horizon), v_given) d;
    select l.* into v_newest
    from ml.labels l
    where coalesce(l.name, l.label) = create_label.name order by l.version desc limit 1;
    if (v_newest.kind, v_newest.task, v_newest.horizon, v_newest.params)
        is not distinct from (v_kind, v_made.task, horizon, v_made.stored) then
        return v_newest.label;
    end if;
    if v_newest.label is not null and not ml._label_is_used(v_newest.label)
        and not exists (select from ml.models m where m.label = v_newest.label) then
        -- Nobody predicts it yet.
        update ml.labels l
        set kind = v_kind, task = v_made.task, horizon = create_label.horizon,
            params = v_made.stored, description = coalesce(create_label.description, v_made.what)
        where l.label = v_newest.label;
        return v_newest.label;
    end if;
    v_version := coalesce(v_newest.version, 0) + 1;
    v_label := name || case when v_version > 1 then '@' || v_version else '' end;
    insert into ml.labels (label, name, version, task, kind, horizon, params, description)
    values (
        v_label, create_label.name, v_version, v_made.task, v_kind, create_label.horizon,
        v_made.stored, coalesce(create_label.description, v_made.what)
    );
    return v_label;
end
$$;
comment on function ml.create_label(text, text, interval, jsonb, text, text) is
'Declares what is to be predicted and returns the label''s name for ml.models. kind and params: ml.label_kinds (return, direction with a threshold or dead zone, triple_barrier with fixed or ATR barriers, realised_volatility, volatility (a burst), drawdown, volume, spread, liquidation, rank among symbols, …). horizon: how far it looks, whole minutes; where it is no multiple of a model''s grid the label is made of finer bars. Or query: a SELECT of one row with a column target, a number (regression) or a boolean (classification), over the market''s tables, which hold the symbol''s rows of [t - lookback_days, t + horizon), and market.label_interval (one row: ts, label_end); it runs as a feature set''s does. The task follows from the kind. The same again gives the same label; another definition under a name that models use is a new label, name@2, and the old one stays what it was. Errors: AP226 the name, AP227 neither a kind nor a query, AP307 unknown kind or parameter, or a value that is not taken, AP222 such a query is not taken.';

create or replace function ml.drop_label(label text) returns void
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp
as $$
declare
    v_used text;
begin
    perform ml._label(label);
    select string_agg(distinct u.model, ', ') into v_used
    from (
        select m.model from ml.models m where m.label = drop_label.label
        union all
        select v.model from ml.model_versions v where v.label = drop_label.label
        union all
        select e.ensemble from ml.ensembles e where e.label = drop_label.label
    ) u;
    if v_used is not null then
        raise exception 'label % is in use', quote_literal(label)
        using errcode = 'AP228', detail = format('By %s.', v_used), hint = 'Drop those first.';
    end if;
    delete from ml.labels l where l.label = drop_label.label;
end
$$;
comment on function ml.drop_label(text) is
'Drops a label that no model, version or ensemble uses. Errors: AP301 unknown label, AP228 it is in use.';

create or replace function ml._label(label text) returns ml.labels
language plpgsql stable parallel safe set search_path = pg_catalog, pg_temp
as $$
declare
    v_label ml.labels;
begin
    select l.* into v_label from ml.labels l where l.label = _label.label;
    if not found then
        raise exception 'unknown label %', quote_nullable(label)
        using errcode = 'AP301', hint = 'List them with: select label, horizon from ml.labels';
    end if;
    return v_label;
end
$$;

create or replace function ml._label_grid(grid interval) returns bigint
language plpgsql immutable parallel safe set search_path = pg_catalog, pg_temp
as $$
begin
    if grid is null or grid < interval '1 minute' or grid > interval '1 day'
        or mod(extract(epoch from grid), 60) <> 0 or mod(86400, extract(epoch from grid)) <> 0 then
        raise exception 'a grid of % is not possible', coalesce(grid::text, 'null')
        using errcode = 'AP203',
            hint = 'Use whole minutes that divide a day: 1 minute, 5 minutes, 1 hour, 1 day, …';
    end if;
    return ops._micros(grid);
end
$$;

create or replace function ml.label_values(
    label text, symbol text, "from" timestamptz, "to" timestamptz, as_of timestamptz default null,
    grid interval default interval '1 minute'
)
returns table (ts timestamptz, label_end timestamptz, target double precision)
language plpgsql stable parallel restricted set search_path = pg_catalog, pg_temp
as $$
declare
    v_label constant ml.labels := ml._label(label);
begin
    return query
        select ops._at(r.at), ops._at(r.label_end), r.target
        from ml._label_rows(
            v_label.kind, ops._micros(v_label.horizon), v_label.params, market.resolve(symbol),
            ml._label_grid(grid), ops._micros("from"), ops._micros("to"),
            ops._micros(coalesce(as_of, now()))
        ) r;
end
$$;
comment on function ml.label_values(text, text, timestamptz, timestamptz, timestamptz, interval) is
'A label at the grid times in [from, to), where its horizon had ended and was known by as_of (default: now). Nothing that happens from label_end on changes it: ts + horizon, of a triple barrier the end of the bar in which the first barrier was hit. Classes are 0 and 1; thresholds of bursts and liquidations are the symbol''s own trailing quantile over lookback_days, of intervals that had ended by ts and as known at ts. A horizon that is no multiple of the grid is made of finer bars. Errors: AP101 unknown symbol, AP203 an impossible grid, AP221 there are no bars fine enough, AP229 a SELECT gives several rows, AP301 unknown label.';

create or replace function ml.label_barriers(
    label text, symbol text, "from" timestamptz, "to" timestamptz, as_of timestamptz default null,
    grid interval default interval '1 minute'
)
returns table (
    ts timestamptz, label_end timestamptz, hit text, return_bps double precision,
    upper_price double precision, lower_price double precision
)
language plpgsql stable parallel restricted set search_path = pg_catalog, pg_temp
as $$
declare
    v_label constant ml.labels := ml._label(label);
begin
    return query
        select ops._at(r.at), ops._at(r.label_end), r.hit, r.return_bps, r.upper, r.lower
        from ml._label_barriers(
            v_label.kind, ops._micros(v_label.horizon), v_label.params, market.resolve(symbol),
            ml._label_grid(grid), ops._micros("from"), ops._micros("to"),
            ops._micros(coalesce(as_of, now()))
        ) r;
end
$$;
comment on function ml.label_barriers(text, text, timestamptz, timestamptz, timestamptz, interval) is
'What a label of kind triple_barrier is made of, at the grid times in [from, to) where it was known by as_of (default: now): hit: up, down or time, whichever came first; label_end: when the bar (the minute, where one bar reached both) in which it was hit ended, else ts + horizon; return_bps: log return from the close before ts to that of that bar; the two prices. Errors: AP101 unknown symbol, AP203 an impossible grid, AP221 there are no bars fine enough, AP223 the label has no barriers, AP301 unknown label.';

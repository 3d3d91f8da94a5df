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
returns table (at bigint, target double precision)
language plpython3u stable parallel restricted set search_path = pg_catalog, pg_temp
as $python$
    from alphaplus.server.training import dataset
    return dataset.label_rows(plpy, GD, kind, horizon, params, symbol, step, start, stop, as_of)
$python$;

create or replace function ml.label_values(
    label text, symbol text, "from" timestamptz, "to" timestamptz, as_of timestamptz default null,
    grid interval default interval '1 minute'
)
returns table (ts timestamptz, label_end timestamptz, target double precision)
language plpgsql stable parallel restricted set search_path = pg_catalog, pg_temp
as $$
declare
    v_label ml.labels;
    v_symbol text := market.resolve(symbol);
begin
    select l.* into v_label from ml.labels l where l.label = label_values.label;
    if not found then
        raise exception 'unknown label %', coalesce(quote_literal(label), 'null')
        using errcode = 'AP301', hint = 'List them with: select label, horizon from ml.labels';
    end if;
    return query
        select
            ops._at(r.at), ops._at(r.at) + v_label.horizon, r.target
        from ml._label_rows(
            v_label.kind, ops._micros(v_label.horizon), v_label.params, v_symbol,
            ops._micros(grid), ops._micros("from"), ops._micros("to"),
            ops._micros(coalesce(as_of, now()))
        ) r;
end
$$;
comment on function ml.label_values(text, text, timestamptz, timestamptz, timestamptz, interval) is
'A label at the grid times in [from, to), where its interval [ts, label_end) had ended and was known by as_of (default: now). Classes are 0 and 1; thresholds are the symbol''s own trailing quantile over lookback_days, of intervals that had ended by ts and as known at ts. Errors: AP101 unknown symbol, AP301 unknown label.';

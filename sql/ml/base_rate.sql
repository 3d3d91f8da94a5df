-- What a label was on average: the answer where no version may give one. It is that known at the
-- last full or half hour, so that it can be kept (ml.base_rates).
create or replace function ml._base_rate_of(
    task text, kind text, horizon bigint, params jsonb, symbol text, step bigint, as_of bigint,
    window_length bigint
)
returns double precision
language plpython3u stable parallel restricted set search_path = pg_catalog, pg_temp
as $python$
    from alphaplus.server.training import dataset
    return dataset.base_rate(
        plpy, GD, task, kind, horizon, params, symbol, step, as_of, window_length
    )
$python$;

create or replace function ml._base_rate_window(horizon interval) returns interval
language plpgsql stable parallel safe set search_path = pg_catalog, pg_temp
as $$
begin
    return greatest(ops.setting_interval('ml.base_rate_window', interval '7 days'), horizon * 20);
end
$$;

create or replace function ml._computed_base_rate(
    label text, symbol text, grid interval, as_of timestamptz
)
returns double precision
language plpgsql stable parallel restricted set search_path = pg_catalog, pg_temp
as $$
begin
    return (
        select ml._base_rate_of(
            l.task, l.kind, ops._micros(l.horizon), l.params, $2, ops._micros($3), ops._micros($4),
            ops._micros(ml._base_rate_window(l.horizon))
        )
        from ml.labels l
        where l.label = $1
    );
end
$$;

create or replace function ml._base_rate(label text, symbol text, grid interval, as_of timestamptz)
returns double precision
language plpgsql stable parallel restricted set search_path = pg_catalog, pg_temp
as $$
declare
    v_at constant timestamptz := public.time_bucket(greatest(grid, interval '30 minutes'), as_of);
    v_kept record;
begin
    select b.base_rate into v_kept
    from ml.base_rates b
    where b.label = $1 and b.symbol = $2 and b.grid = $3 and b.as_of = v_at
        and b.window_length = (
            select ml._base_rate_window(l.horizon) from ml.labels l where l.label = $1
        );
    if found then
        return v_kept.base_rate;
    end if;
    return ml._computed_base_rate(label, symbol, grid, v_at);
end
$$;
comment on function ml._base_rate(text, text, interval, timestamptz) is
'Mean of a label over the intervals, one after the other, that ended in the last week (setting ml.base_rate_window; at least 20 horizons) before the last full or half hour not after as_of, as known then; of classes Jeffreys'' estimate, (events + 1/2) / (intervals + 1). Null where no outcome is known. The kept one (ml.base_rates) where there is one, computed otherwise.';

create or replace procedure ml.keep_base_rates(
    model text default null, symbol text default null, "from" timestamptz default null,
    "to" timestamptz default null
)
language plpgsql security definer set search_path = pg_catalog, pg_temp set timezone = 'UTC'
as $$
declare
    v_symbol text := case when symbol is not null then market.resolve(symbol) end;
    v_stop constant timestamptz := coalesce("to", clock_timestamp());
    v_work record;
begin
    if not (isfinite(coalesce("from", v_stop)) and isfinite(v_stop)) then
        raise exception 'a time is null or infinite'
        using errcode = 'AP211', hint = 'Say from when to when, each with a date.';
    end if;
    if model is not null and not exists (
        select from ml.models m where m.model = keep_base_rates.model
    ) then
        perform ml._no_champion(model, null);
    end if;
    if v_stop - coalesce("from", v_stop) > interval '400 days' then
        raise exception 'more than 400 days at once'
        using errcode = 'AP515', hint = 'Keep the base rates year by year.';
    end if;
    for v_work in
        select distinct
            m.label, w.symbol, s.grid, ml._base_rate_window(l.horizon) as window_length, g.at
        from ml.models m
        join ml.labels l on l.label = m.label
        join feature.sets s on s.name = m.feature_set and s.version = m.feature_version
        -- Only where what arrives late is noticed.
        join feature.watermarks w on v_symbol is null or w.symbol = v_symbol
        cross join lateral generate_series(
            public.time_bucket(
                greatest(s.grid, interval '30 minutes'), coalesce("from", v_stop)
            ), v_stop, greatest(s.grid, interval '30 minutes')
        ) g (at)
        where w.through > g.at
            and (keep_base_rates.model is null or m.model = keep_base_rates.model)
            -- By the clock, only those that are needed.
            and ("from" is not null or ml.champion(m.model, w.symbol) is null)
            and not exists (
                select from ml.base_rates b
                where b.label = m.label and b.symbol = w.symbol and b.grid = s.grid
                    and b.as_of = g.at
                    and b.window_length = ml._base_rate_window(l.horizon)
            )
        order by w.symbol, m.label, g.at
    loop
        insert into ml.base_rates (label, symbol, grid, as_of, window_length, base_rate)
        values (
            v_work.label, v_work.symbol, v_work.grid, v_work.at, v_work.window_length,
            ml._computed_base_rate(v_work.label, v_work.symbol, v_work.grid, v_work.at)
        )
        on conflict do nothing;
    end loop;
    if "from" is null then
        delete from ml.base_rates b
        where b.as_of < v_stop - ops.setting_interval('ml.keep_base_rates', interval '400 days');
    end if;
end
$$;
comment on procedure ml.keep_base_rates(text, text, timestamptz, timestamptz) is
'Compute the base rates of a model''s label (null: of all models) for a symbol (null: all with stored vectors) at the full and half hours in [from, to], and keep them in ml.base_rates, so that answers that fall back on them cost a look-up. Without from: the last one before to (default: now), only where no champion serves, and those older than the setting ml.keep_base_rates go; so the clock calls it. Errors: AP101, AP102 symbol, AP211 an infinite time, AP302 unknown model, AP515 too long a stretch.';

insert into ops.settings (name, value, description)
values
('ml.keep_base_rates', '"400 days"', 'How long kept base rates (ml.base_rates) stay.')
on conflict (name) do nothing;

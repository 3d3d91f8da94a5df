-- The six states and the names that others have for them.
insert into regime.states (state, position, description)
values
('bull_trending', 1, 'Prices rise more than they move back and forth.'),
('bear_trending', 2, 'Prices fall more than they move back and forth.'),
('sideways', 3, 'No trend, at usual volatility.'),
('high_volatility', 4, 'Volatility far above the symbol''s own usual level.'),
('low_volatility', 5, 'Volatility far below the symbol''s own usual level, and no trend.'),
('crash', 6, 'A fast and deep fall.')
on conflict (state) do update set position = excluded.position, description = excluded.description;

insert into regime.mappings (naming, name, states, description)
values
('three_state', 'trending', '{bull_trending,bear_trending}', 'A trend in either direction.'),
('three_state', 'ranging', '{sideways,low_volatility}', 'No trend, at usual or low volatility.'),
('three_state', 'volatile', '{high_volatility,crash}', 'High volatility, or a crash.'),
('four_state', 'trending', '{bull_trending,bear_trending}', 'A trend in either direction.'),
('four_state', 'sideways', '{sideways}', 'No trend, at usual volatility.'),
('four_state', 'volatile', '{high_volatility,crash}', 'High volatility, or a crash.'),
('four_state', 'consolidation', '{low_volatility}', 'No trend, at low volatility.')
on conflict (naming, name) do nothing;

create or replace function regime.resolve(regime text)
returns text []
language plpgsql stable parallel safe set search_path = pg_catalog, pg_temp
as $$
declare
    v_name text := replace(replace(lower(trim(regime)), ' ', '_'), '-', '_');
    v_states text [];
    v_count bigint;
    v_unknown text;
begin
    if exists (select from regime.states s where s.state = v_name) then
        return array[v_name];
    end if;
    select count(distinct m.states), min(m.states) into v_count, v_states
    from regime.mappings m
    where m.name in (v_name, trim(resolve.regime));
    if v_count = 0 then
        raise exception 'unknown regime %', coalesce(quote_literal(regime), 'null')
        using errcode = 'AP601', hint = format('One of %s.', (
            select string_agg(n.name, ', ' order by n.name) from (
                select s.state as name from regime.states s
                union
                select m.name from regime.mappings m
            ) n
        ));
    end if;
    if v_count > 1 then
        raise exception 'regime % stands for different states in different namings',
            quote_literal(regime)
        using errcode = 'AP610', hint = 'Name one of the six states: select state from regime.states.';
    end if;
    select string_agg(quote_literal(u.state), ', ') into v_unknown
    from unnest(v_states) u (state)
    where not exists (select from regime.states s where s.state = u.state);
    if v_unknown is not null then
        raise exception 'the mapping of regime % names no state: %', quote_literal(regime), v_unknown
        using errcode = 'AP611', hint = 'Correct its row in regime.mappings; select state from regime.states.';
    end if;
    return v_states;
end
$$;
comment on function regime.resolve(text) is
'The states that a regime''s name stands for: one of the six (any case, blanks for underscores), or
a name of regime.mappings such as trending. Errors: AP601 unknown regime, AP610 two namings disagree,
AP611 a mapping that names no state.';

create or replace function regime.canonical(regime text)
returns text
language plpgsql stable parallel safe set search_path = pg_catalog, pg_temp
as $$
declare
    v_name text := replace(replace(lower(trim(regime)), ' ', '_'), '-', '_');
begin
    perform regime.resolve(regime);
    if not exists (select from regime.states s where s.state = v_name)
        and not exists (select from regime.mappings m where m.name = v_name) then
        return trim(regime);
    end if;
    return v_name;
end
$$;
comment on function regime.canonical(text) is
'How a regime''s name is written in the registry: Bull trending is bull_trending. Errors: those of
regime.resolve.';

create or replace function regime._positions(regime text)
returns integer []
language plpgsql stable parallel safe set search_path = pg_catalog, pg_temp
as $$
begin
    if regime is null then
        return null;
    end if;
    return array(
        select s.position - 1 from regime.states s
        where s.state = any (regime.resolve(_positions.regime)) order by 1
    );
end
$$;
comment on function regime._positions(text) is
'The places, from 0, of the states that a regime''s name stands for; null: null. Errors: those of
regime.resolve.';

create or replace function regime.names_of(state text)
returns text []
language plpgsql stable parallel safe set search_path = pg_catalog, pg_temp
as $$
begin
    return array[state] || array(
        select m.name
        from regime.mappings m
        where state = any (m.states) and m.name <> state
        group by m.name
        order by min(cardinality(m.states)), m.name
    );
end
$$;
comment on function regime.names_of(text) is
'The names under which a version may serve a state, the narrowest first: the state itself, then the
mappings that hold it (bull_trending: bull_trending, trending).';

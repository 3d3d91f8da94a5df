-- Distances between two samples, from raw values: SciPy's own figures.

create or replace function drift._sample(sample double precision [])
returns bytea
language sql immutable parallel safe
set search_path = pg_catalog, pg_temp
as $$
    select array_send(array_remove(u.flat, null))
    from (
        select case
            when array_ndims(sample) = 1 then sample
            else array(select x from unnest(sample) as x)
        end as flat
    ) u
$$;
comment on function drift._sample(double precision []) is 'A sample''s values without nulls, as bytes.';

create or replace function drift._ks(a bytea, b bytea, out statistic double precision, out p_value double precision)
language plpython3u immutable parallel safe
set search_path = pg_catalog, pg_temp
as $python$
    from alphaplus.server.drift import statistics as st
    return st.ks_raw(st.sample(a), st.sample(b)) or (None, None)
$python$;

create or replace function drift.ks(
    a double precision [], b double precision [],
    out statistic double precision, out p_value double precision
)
language sql immutable parallel safe
set search_path = pg_catalog, pg_temp
as $$
    select k.statistic, k.p_value from drift._ks(drift._sample(a), drift._sample(b)) k
$$;
comment on function drift.ks(double precision [], double precision []) is
'Kolmogorov and Smirnov''s two-sample test: the largest difference of the two distribution functions
and its two-sided p-value, exact up to 10,000 values and asymptotic above, as scipy.stats.ks_2samp.
Nulls and NaN are left out; null where a sample is empty. The p-value is right for independent rows
only: minute data are not (see drift.check).';

create or replace function drift._wasserstein(a bytea, b bytea)
returns double precision
language plpython3u immutable parallel safe
set search_path = pg_catalog, pg_temp
as $python$
    from alphaplus.server.drift import statistics as st
    return st.wasserstein_raw(st.sample(a), st.sample(b))
$python$;

create or replace function drift.wasserstein(a double precision [], b double precision [])
returns double precision
language sql immutable parallel safe
set search_path = pg_catalog, pg_temp
as $$
    select drift._wasserstein(drift._sample(a), drift._sample(b))
$$;
comment on function drift.wasserstein(double precision [], double precision []) is
'The Wasserstein-1 distance of two samples (the area between their distribution functions), in the
values'' unit, as scipy.stats.wasserstein_distance. Nulls and NaN are left out; null where a sample
is empty or the distance is not finite.';

create or replace function drift._binned(statistic text, a bytea, b bytea, bins integer)
returns double precision
language plpython3u immutable parallel safe
set search_path = pg_catalog, pg_temp
as $python$
    from alphaplus.server.drift import statistics as st
    return st.binned_raw(statistic, st.sample(a), st.sample(b), bins)
$python$;

create or replace function drift._bins(bins integer)
returns integer
language plpgsql immutable parallel safe
set search_path = pg_catalog, pg_temp
as $$
begin
    if bins is null or bins < 2 or bins > 1000 then
        raise exception 'bins is %, it must be from 2 to 1000', coalesce(bins::text, 'null')
        using errcode = 'AP634', hint = '10 is usual for the population stability index.';
    end if;
    return bins;
end
$$;
comment on function drift._bins(integer) is 'The number of bins, or AP634.';

create or replace function drift.psi(
    a double precision [], b double precision [], bins integer default 10
)
returns double precision
language sql immutable parallel safe
set search_path = pg_catalog, pg_temp
as $$
    select drift._binned('psi', drift._sample(a), drift._sample(b), drift._bins(bins))
$$;
comment on function drift.psi(double precision [], double precision [], integer) is
'Population stability index of a against the reference b: the sum over bins of (p - q) ln(p / q), the
bins of equal share of the reference (as many as it has values, where these are fewer), p and q the
shares with half a row added to each bin so that an empty one counts as unlikely and not as
impossible. Nulls and NaN are left out; null where a sample is empty. Errors: AP634 number of bins.
Source: Siddiqi (2006), Credit Risk Scorecards.';

create or replace function drift.js(
    a double precision [], b double precision [], bins integer default 50
)
returns double precision
language sql immutable parallel safe
set search_path = pg_catalog, pg_temp
as $$
    select drift._binned('js', drift._sample(a), drift._sample(b), drift._bins(bins))
$$;
comment on function drift.js(double precision [], double precision [], integer) is
'Jensen and Shannon''s distance of a to the reference b, 0 to 1: the square root of the divergence in
bits, in bins of equal share of the reference, as scipy.spatial.distance.jensenshannon(base=2) of
the binned shares. Nulls and NaN are left out; null where a sample is empty. Errors: AP634.';

create or replace function drift._chi2(a bigint [], b bigint [])
returns record
language plpython3u immutable parallel safe
set search_path = pg_catalog, pg_temp
as $python$
    from alphaplus.server.drift import statistics as st
    return st.chi2(a, b)
$python$;

create or replace function drift.chi2(
    a text [], b text [],
    out statistic double precision, out p_value double precision, out freedom integer
)
language sql immutable parallel safe
set search_path = pg_catalog, pg_temp
as $$
    select c.statistic, c.p_value, c.freedom
    from (
        select array_agg(x.a order by x.category) as a, array_agg(x.b order by x.category) as b
        from (
            select u.category, count(*) filter (where u.first) as a, count(*) filter (where not u.first) as b
            from (
                select x as category, true as first from unnest($1) as x
                union all
                select x, false from unnest($2) as x
            ) u
            where u.category is not null
            group by u.category
        ) x
    ) t
    cross join lateral drift._chi2(t.a, t.b) as c (
        statistic double precision, p_value double precision, freedom integer
    )
    where t.a is not null
$$;
comment on function drift.chi2(text [], text []) is
'Pearson''s chi-squared test that two samples of categories come from one distribution: statistic,
p-value and degrees of freedom, as scipy.stats.chi2_contingency(correction=False). Nulls are left
out; null where both samples are empty; statistic 0 and p 1 where one is, or all is one category.';

create or replace function drift._by(p double precision [])
returns double precision []
language plpython3u immutable parallel safe
set search_path = pg_catalog, pg_temp
as $python$
    from alphaplus.server.drift import statistics as st
    return st.adjusted("by", p)
$python$;

create or replace function drift._e_bh(e double precision [])
returns double precision []
language plpython3u immutable parallel safe
set search_path = pg_catalog, pg_temp
as $python$
    from alphaplus.server.drift import statistics as st
    return st.adjusted("e_bh", e)
$python$;

create or replace function drift.by(p double precision [])
returns double precision []
language sql immutable parallel safe
set search_path = pg_catalog, pg_temp
as $$
    select drift._by(case when p is not null then array(
        select u.x from unnest(p) with ordinality u (x, n) order by u.n
    ) end)
$$;
comment on function drift.by(double precision []) is
'p-values of many tests adjusted by Benjamini and Yekutieli (2001, Annals of Statistics 29): rejecting
those at or below q keeps the false discovery rate at q whatever their dependence. Nulls and NaN stay
null and do not count.';

create or replace function drift.e_bh(e double precision [])
returns double precision []
language sql immutable parallel safe
set search_path = pg_catalog, pg_temp
as $$
    select drift._e_bh(case when e is not null then array(
        select u.x from unnest(e) with ordinality u (x, n) order by u.n
    ) end)
$$;
comment on function drift.e_bh(double precision []) is
'The level at which the e-BH procedure rejects each of many e-values (1: at none), valid whatever
their dependence. Nulls and NaN stay null and do not count. Source: Wang and Ramdas (2022), Journal
of the Royal Statistical Society B 84.';

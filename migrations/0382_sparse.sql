-- depends: 0381_corporate_actions
--
-- 0382: windows of indicators count bars. Where bars are missing, one can lie farther back than the
-- lookback; a late bar then voids the stored vectors that far ahead.
alter table feature.sets
add column reach interval constraint sets_reach_check check (reach >= lookback);
comment on column feature.sets.reach is 'How far before t a row can change the vector of t where bars are missing (windows of indicators count bars, not time). Null: no further than lookback.';
drop function if exists feature._declared();
drop function if exists feature._register(
    text, integer, text [], bigint, bigint, bytea, text, text [], text [], text []
);

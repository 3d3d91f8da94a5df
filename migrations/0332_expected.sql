-- depends: 0331_lifecycle
--
-- 0332: what held-out predictions of about one size were wrong by, to estimate later errors from.
alter table drift.reference_features add column squares double precision [];
comment on column drift.reference_features.squares is
'Of scores: mean squared error of the held-out predictions in each bin; null otherwise.';

-- Texts and scores as one reads them.
create or replace view sentiment.hourly as
select r.* from sentiment.hourly_rows r
where not exists (
    select from sentiment.hourly_marks m where m.symbol = r.symbol and m.bucket = r.bucket
)
union all
select h.*
from (select distinct m.symbol, m.bucket from sentiment.hourly_marks m) d
cross join lateral sentiment._hourly(d.symbol, d.bucket) h;
comment on view sentiment.hourly is
'Scores by asset, hour, method and source, never stale: hours that changed since the last refresh are computed when read. Partial rows: those with usable_at <= t, added up, are the hour as known at t.';
comment on column sentiment.hourly.symbol is 'The asset; *: all texts.';
comment on column sentiment.hourly.bucket is 'Start of the hour.';
comment on column sentiment.hourly.method is 'The method that scored.';
comment on column sentiment.hourly.source is 'Kind of source.';
comment on column sentiment.hourly.usable_at is 'From when on these texts could be used.';
comment on column sentiment.hourly.text_count is 'Texts, copies too.';
comment on column sentiment.hourly.copy_count is 'Near-duplicates of texts known before.';
comment on column sentiment.hourly.scored_count is 'Texts with a score that are no copies.';
comment on column sentiment.hourly.score_sum is 'Sum of their scores.';
comment on column sentiment.hourly.score_squares is 'Sum of the squared scores.';
comment on column sentiment.hourly.positive_count is 'Those labelled positive.';
comment on column sentiment.hourly.negative_count is 'Those labelled negative.';
comment on column sentiment.hourly.weight_sum is 'Sum of engagement weights.';
comment on column sentiment.hourly.weighted_sum is 'Sum of weight times score.';
comment on column sentiment.hourly.novelty_count is 'Texts whose novelty is known.';
comment on column sentiment.hourly.novelty_sum is 'Sum of their novelty.';

create or replace view sentiment.sentiment_analysis as
select
    t.text_id as id,
    t.ts as "timestamp",
    s.symbol,
    t.source,
    s.score as sentiment_score,
    s.label as sentiment_label,
    s.confidence as confidence_score,
    t.text as text_content,
    t.url as source_url,
    t.author,
    t.engagement as engagement_metrics,
    to_jsonb(s.keywords) as keywords,
    t.language,
    t.known_at as created_at,
    s.method,
    s.version,
    s.known_at,
    t.duplicate_of
from sentiment.scores s
join sentiment.texts t on t.text_id = s.text_id and t.ts = s.ts
where s.method = ops.setting_text('sentiment.method', 'blend');
comment on view sentiment.sentiment_analysis is
'Texts with their scores by the method of setting sentiment.method, one row per asset (*: the text as a whole), with the columns of the seeds'' table and four more.';
comment on column sentiment.sentiment_analysis.id is 'The text (sentiment.texts.text_id).';
comment on column sentiment.sentiment_analysis."timestamp" is 'When it was published.';
comment on column sentiment.sentiment_analysis.symbol is 'The asset; *: the whole text.';
comment on column sentiment.sentiment_analysis.source is 'Kind of source.';
comment on column sentiment.sentiment_analysis.sentiment_score is 'Sentiment, -1 to 1; null where it cannot be told.';
comment on column sentiment.sentiment_analysis.sentiment_label is 'negative, neutral or positive.';
comment on column sentiment.sentiment_analysis.confidence_score is 'How sure the method is, 0 to 1.';
comment on column sentiment.sentiment_analysis.text_content is 'The text.';
comment on column sentiment.sentiment_analysis.source_url is 'Where it is found.';
comment on column sentiment.sentiment_analysis.author is 'The author''s keyed hash, or name.';
comment on column sentiment.sentiment_analysis.engagement_metrics is 'Counts of likes, retweets, comments.';
comment on column sentiment.sentiment_analysis.keywords is 'The words that decided, strongest first.';
comment on column sentiment.sentiment_analysis.language is 'Language of the text.';
comment on column sentiment.sentiment_analysis.created_at is 'When the text was known.';
comment on column sentiment.sentiment_analysis.method is 'The method that scored.';
comment on column sentiment.sentiment_analysis.version is 'Its version.';
comment on column sentiment.sentiment_analysis.known_at is 'When the score was known.';
comment on column sentiment.sentiment_analysis.duplicate_of is 'The first text of which this is a copy.';

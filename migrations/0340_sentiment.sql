-- depends: 0311_regime_models
--
-- 0340: texts about the market, with two clocks like all that happens, and what was found in them.
create table sentiment.texts (
    text_id bigint not null,
    ts timestamptz not null,
    known_at timestamptz not null default clock_timestamp(),
    received_at timestamptz,
    source text not null check (source in ('twitter', 'reddit', 'news', 'telegram', 'other')),
    source_id text not null,
    symbols text [] collate "C" not null default '{}',
    author text,
    author_is_hashed boolean not null default true,
    url text,
    text text not null,
    language text,
    language_confidence double precision check (language_confidence between 0 and 1),
    engagement jsonb not null default '{}' check (jsonb_typeof(engagement) = 'object'),
    engagement_known_at timestamptz,
    novelty double precision check (novelty between 0 and 1),
    duplicate_of bigint,
    load_id bigint,
    primary key (text_id, ts),
    constraint texts_known_after check (known_at >= ts),
    constraint texts_engagement_after check (engagement_known_at >= known_at)
);
select public.create_hypertable('sentiment.texts', public.by_range('ts', interval '7 days'), create_default_indexes => false);
create index texts_ts_idx on sentiment.texts (ts);

comment on table sentiment.texts is 'Texts about the market. A text counts from known_at on, never from ts. Near-duplicates point to the first one known.';
comment on column sentiment.texts.text_id is 'Made of source and source_id (the first eight bytes of their BLAKE2b hash), so that the same text loaded again is the same row.';
comment on column sentiment.texts.ts is 'When it was published.';
comment on column sentiment.texts.known_at is 'When it could first have been used here.';
comment on column sentiment.texts.received_at is 'What the source''s own receive clock said, where it has one.';
comment on column sentiment.texts.source is 'Kind of source: twitter, reddit, news, telegram, other.';
comment on column sentiment.texts.source_id is 'The source''s own id of the text; where it has none, a hash of author, address and text.';
comment on column sentiment.texts.symbols is 'Assets (market.instruments.base, such as BTC) that the text mentions or the source says it is about.';
comment on column sentiment.texts.author is 'A keyed hash (HMAC-SHA-256) of the author''s name; the name itself only where setting sentiment.raw_authors says so.';
comment on column sentiment.texts.author_is_hashed is 'Whether author is a keyed hash.';
comment on column sentiment.texts.url is 'Where the text is found.';
comment on column sentiment.texts.text is 'The text as published.';
comment on column sentiment.texts.language is 'ISO 639 code found by the loader; und: could not be told; zxx: no words.';
comment on column sentiment.texts.language_confidence is 'How sure the detector is of the language, 0 to 1.';
comment on column sentiment.texts.engagement is 'Counts such as likes, retweets, comments.';
comment on column sentiment.texts.engagement_known_at is 'When these counts were read; an archive''s counts are those of its own time, not of the text''s.';
comment on column sentiment.texts.novelty is '1 less the greatest estimated Jaccard similarity of its word triples to a text known before it within the window of near-duplicates.';
comment on column sentiment.texts.duplicate_of is 'text_id of the first known text that this one is a near-duplicate of; null: it is one of its own.';
comment on column sentiment.texts.load_id is 'The load (market.loads) that brought it.';

create table sentiment.scores (
    symbol text collate "C" not null,
    ts timestamptz not null,
    text_id bigint not null,
    method text not null,
    version text not null,
    known_at timestamptz not null,
    source text not null,
    author text,
    score double precision check (score between -1 and 1),
    label text check (label in ('negative', 'neutral', 'positive')),
    confidence double precision check (confidence between 0 and 1),
    keywords text [] not null default '{}',
    reason text,
    is_copy boolean not null,
    novelty double precision,
    weight double precision not null default 1 check (weight >= 1),
    weight_known_at timestamptz,
    primary key (symbol, ts, text_id, method),
    constraint scores_known_after check (known_at >= ts),
    constraint scores_reason check ((score is null) = (label is null)),
    constraint scores_why check (score is not null or reason is not null)
);
select public.create_hypertable('sentiment.scores', public.by_range('ts', interval '7 days'), create_default_indexes => false);
create index scores_text_idx on sentiment.scores (text_id, ts);

comment on table sentiment.scores is 'Scores of texts, one per asset and method; symbol * is the text as a whole. A score stays as it was made: a new version of a model scores what comes after it.';
comment on column sentiment.scores.symbol is 'The asset (BTC) that the scored sentences are about; *: the whole text.';
comment on column sentiment.scores.ts is 'When the text was published.';
comment on column sentiment.scores.text_id is 'The text (sentiment.texts).';
comment on column sentiment.scores.method is 'vader, textblob, finance, blend, terms, or a registered text model.';
comment on column sentiment.scores.version is 'Version of the method: of the package, or the model''s version_id.';
comment on column sentiment.scores.known_at is 'From when on the score could have been known: the text''s known_at, and not before the model''s version was usable.';
comment on column sentiment.scores.source is 'Kind of source of the text.';
comment on column sentiment.scores.author is 'Author of the text, as in sentiment.texts.';
comment on column sentiment.scores.score is 'Sentiment, -1 to 1; null where it cannot be told (reason).';
comment on column sentiment.scores.label is 'negative, neutral or positive.';
comment on column sentiment.scores.confidence is 'How sure the method is, 0 to 1; a probability only for trained models.';
comment on column sentiment.scores.keywords is 'The words that decided, strongest first.';
comment on column sentiment.scores.reason is 'Why there is no score, or what it leaves out.';
comment on column sentiment.scores.is_copy is 'Whether the text is a near-duplicate of one known before: it counts for volume, not for the mean.';
comment on column sentiment.scores.novelty is 'Novelty of the text, as in sentiment.texts.';
comment on column sentiment.scores.weight is 'Engagement weight: 1 + ln(1 + likes + retweets + comments).';
comment on column sentiment.scores.weight_known_at is 'When the engagement was known; before that the weight is 1.';

create table sentiment.unscored (
    text_id bigint not null,
    ts timestamptz not null,
    unscored_id bigint generated always as identity primary key
);
comment on table sentiment.unscored is 'Texts that wait to be scored (sentiment.score_pending).';
comment on column sentiment.unscored.text_id is 'The text.';
comment on column sentiment.unscored.ts is 'When it was published.';
comment on column sentiment.unscored.unscored_id is 'Order of arrival.';

-- Hour by hour; the rows of an hour are partial: one per known_at from which they can be used. Before
-- the hour has closed its texts are read from sentiment.scores.
create table sentiment.hourly_rows (
    symbol text collate "C" not null,
    bucket timestamptz not null,
    method text not null,
    source text not null,
    usable_at timestamptz not null,
    text_count bigint not null,
    copy_count bigint not null,
    scored_count bigint not null,
    score_sum numeric not null,
    score_squares numeric not null,
    positive_count bigint not null,
    negative_count bigint not null,
    weight_sum numeric not null,
    weighted_sum numeric not null,
    novelty_count bigint not null,
    novelty_sum numeric not null,
    primary key (symbol, bucket, method, source, usable_at)
);
comment on table sentiment.hourly_rows is 'Scores by asset, hour, method and source as of the last refresh; read them through sentiment.hourly. Partial: those with usable_at up to a time add up to what was known then.';
comment on column sentiment.hourly_rows.symbol is 'The asset; *: all texts.';
comment on column sentiment.hourly_rows.bucket is 'Start of the hour.';
comment on column sentiment.hourly_rows.method is 'The method that scored.';
comment on column sentiment.hourly_rows.source is 'Kind of source.';
comment on column sentiment.hourly_rows.usable_at is 'From when on these texts, or their engagement, could be used: the end of the hour, or later where they became known later.';
comment on column sentiment.hourly_rows.text_count is 'Texts, copies too.';
comment on column sentiment.hourly_rows.copy_count is 'Near-duplicates of texts known before.';
comment on column sentiment.hourly_rows.scored_count is 'Texts with a score that are no copies: the sums below are over these.';
comment on column sentiment.hourly_rows.score_sum is 'Sum of the scores.';
comment on column sentiment.hourly_rows.score_squares is 'Sum of the squared scores.';
comment on column sentiment.hourly_rows.positive_count is 'Texts labelled positive.';
comment on column sentiment.hourly_rows.negative_count is 'Texts labelled negative.';
comment on column sentiment.hourly_rows.weight_sum is 'Sum of engagement weights.';
comment on column sentiment.hourly_rows.weighted_sum is 'Sum of weight times score.';
comment on column sentiment.hourly_rows.novelty_count is 'Texts, copies too, whose novelty is known.';
comment on column sentiment.hourly_rows.novelty_sum is 'Sum of their novelty.';

create table sentiment.hourly_marks (
    symbol text collate "C" not null,
    bucket timestamptz not null
);
create index hourly_marks_idx on sentiment.hourly_marks (symbol, bucket);
comment on table sentiment.hourly_marks is 'Hours of sentiment.hourly_rows that changed since the last refresh.';
comment on column sentiment.hourly_marks.symbol is 'The asset.';
comment on column sentiment.hourly_marks.bucket is 'Start of the hour.';

create table sentiment.blend_weights (
    method text primary key check (method in ('vader', 'textblob', 'finance')),
    weight double precision not null check (weight between 0 and 1)
);
comment on table sentiment.blend_weights is 'Weights of the parts of method blend.';
comment on column sentiment.blend_weights.method is 'The part.';
comment on column sentiment.blend_weights.weight is 'Its weight; the blend is cut to -1 to 1.';

create table sentiment.asset_names (
    name text primary key check (name = lower(name) and name ~ '\S'),
    asset text collate "C" not null
);
comment on table sentiment.asset_names is 'Names of assets in texts, beside the tickers and aliases of market.instruments.';
comment on column sentiment.asset_names.name is 'A name in lower case, such as bitcoin.';
comment on column sentiment.asset_names.asset is 'The asset, as in market.instruments.base.';

create table sentiment.labelled_texts (
    label_set text not null,
    labelled_id bigint generated always as identity,
    text text not null,
    language text not null,
    label double precision not null check (label between -1 and 1),
    ts timestamptz,
    known_at timestamptz not null default clock_timestamp(),
    label_known_at timestamptz not null default clock_timestamp(),
    primary key (label_set, labelled_id)
);
comment on table sentiment.labelled_texts is 'Texts with labels, for training: rated by people, or by the move of the price that followed.';
comment on column sentiment.labelled_texts.label_set is 'Name of the set.';
comment on column sentiment.labelled_texts.labelled_id is 'Number of the row.';
comment on column sentiment.labelled_texts.text is 'The text.';
comment on column sentiment.labelled_texts.language is 'Its language (ISO 639).';
comment on column sentiment.labelled_texts.label is '-1 negative, 0 neutral, 1 positive; or a rating between.';
comment on column sentiment.labelled_texts.ts is 'When it was published; null: not known. With it, folds go forward in time.';
comment on column sentiment.labelled_texts.known_at is 'When the text was known.';
comment on column sentiment.labelled_texts.label_known_at is 'When the label was known: no model with an earlier as_of learns from it.';

create table sentiment.terms (
    version_id bigint not null references ml.model_versions (version_id) on delete cascade,
    term text collate "C" not null,
    weight double precision not null,
    class_weights double precision [] not null,
    primary key (version_id, term)
);
comment on table sentiment.terms is 'The terms of the versions of text models, as in their artifacts, to be read and joined.';
comment on column sentiment.terms.version_id is 'The version (ml.model_versions).';
comment on column sentiment.terms.term is 'w:word, b:word and the next, c:part of a word with ^ at its start and $ at its end; (intercept).';
comment on column sentiment.terms.weight is 'What it says for positive against negative, in log odds.';
comment on column sentiment.terms.class_weights is 'Log odds of each class: negative, positive; or negative, neutral, positive.';

alter table ml.labels drop constraint labels_task_check,
add constraint labels_task_check check (task in ('classification', 'regression', 'regime', 'text'));
alter table ml.model_versions drop constraint model_versions_task_check,
add constraint model_versions_task_check check (task in ('classification', 'regression', 'regime', 'text'));
alter table ml.gates drop constraint gates_task_check,
add constraint gates_task_check check (task in ('classification', 'regression', 'regime', 'text'));
alter table feature.sets drop constraint sets_kind_check;
alter table feature.sets add constraint sets_kind_check check (kind in ('builtin', 'select', 'text'));
comment on column feature.sets.kind is 'builtin: the definition is the name of a feature function; select: the definition is a SELECT checked by feature.create_set; text: a text itself, which models of schema sentiment read.';

create table sentiment.author_keys (
    key_id integer primary key check (key_id = 1),
    key bytea not null check (octet_length(key) = 32)
);
comment on table sentiment.author_keys is 'The key with which authors'' names are hashed. Whoever has it can test a name, so only the owner and the loader read it.';
comment on column sentiment.author_keys.key_id is 'Always 1.';
comment on column sentiment.author_keys.key is 'Thirty-two random bytes.';

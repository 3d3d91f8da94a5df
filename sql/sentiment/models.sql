-- Text models: tables of terms, trained through the queue and promoted like every model.

insert into ml.gates (gate, task, metric, comparison, threshold, against, enabled, description)
values
('text_auc', 'text', 'auc', '>=', 0.6, 'absolute', true, 'It ranks positive texts above negative ones better than chance.'),
('text_macro_f1', 'text', 'macro_f1', '>', 0, 'baseline', true, 'Better than VADER (English), or than always saying the commonest class.'),
('text_log_loss', 'text', 'log_loss', '<', 0, 'baseline', true, 'Its probabilities say more than how frequent the classes are.'),
('text_champion', 'text', 'log_loss', '<=', 0.02, 'champion', true, 'Not worse than the champion on the same texts.')
on conflict (gate) do nothing;

create or replace function sentiment._check_artifact(artifact bytea) returns void
language plpython3u immutable parallel restricted set search_path = pg_catalog, pg_temp
as $python$
    from alphaplus.server.sentiment import terms
    terms.refuse(plpy, artifact)
$python$;
comment on function sentiment._check_artifact(bytea) is 'Refuses what is no table of terms: AP671.';

create or replace function sentiment._rows_of(artifact bytea)
returns table (term text, weight double precision, class_weights double precision [])
language plpython3u immutable parallel restricted set search_path = pg_catalog, pg_temp
as $python$
    from alphaplus.server.sentiment import terms
    return terms.rows(artifact)
$python$;
comment on function sentiment._rows_of(bytea) is 'The terms of an artifact as rows of sentiment.terms.';

-- Labels by what followed in the market.
create or replace function sentiment.label_by_market(
    label_set text, label text, symbol text, "from" timestamptz, "to" timestamptz,
    dead_zone double precision default 0, as_of timestamptz default null
)
returns bigint
language plpgsql volatile parallel unsafe set search_path = pg_catalog, pg_temp
as $$
declare
    v_symbol constant text := market.resolve(symbol);
    v_asset constant text := sentiment._as_asset(symbol);
    v_as_of constant timestamptz := sentiment._as_of(as_of);
    v_task constant text := (ml._label(label)).task;
    v_count bigint;
begin
    if label_set is null or label_set = '' then
        raise exception 'a set of labelled texts needs a name'
        using errcode = 'AP686', hint = 'Give one: select sentiment.label_by_market(''after_news'', …).';
    end if;
    if "from" is null or "to" is null or not isfinite("from") or not isfinite("to")
        or dead_zone is null or not (dead_zone >= 0 and dead_zone < 'infinity') then
        raise exception 'texts are labelled from a time to another, with a dead zone of at least 0'
        using errcode = 'AP687', hint = 'Both times have a date; the dead zone is in the units of the label.';
    end if;
    if v_task not in ('classification', 'regression') then
        raise exception 'label % says nothing of a market', quote_literal(label)
        using errcode = 'AP688', hint = 'A label of task classification or regression: select label, task from ml.labels.';
    end if;
    with followed as materialized (
        select * from ml.label_values(label, v_symbol, "from", "to" + interval '1 minute', v_as_of)
    ), texts as (
        select
            x.text, x.language, x.ts, x.known_at,
            ops._at(((ops._micros(x.known_at) + 59999999) / 60000000) * 60000000) as since
        from sentiment.texts x
        where x.known_at >= "from" and x.known_at < "to" and x.known_at <= v_as_of
            and x.duplicate_of is null and v_asset = any (x.symbols)
    )
    insert into sentiment.labelled_texts (label_set, text, language, label, ts, known_at, label_known_at)
    select
        label_by_market.label_set, t.text, t.language,
        case
            when v_task = 'classification' then case when f.target > 0.5 then 1 else -1 end
            when f.target > dead_zone then 1 when f.target < -dead_zone then -1 else 0
        end,
        t.ts, t.known_at, f.label_end
    from texts t
    join followed f on f.ts = t.since
    where not exists (
        select from sentiment.labelled_texts l
        where l.label_set = label_by_market.label_set and l.ts = t.ts and l.text = t.text
    );
    get diagnostics v_count = row_count;
    return v_count;
end
$$;
comment on function sentiment.label_by_market(text, text, text, timestamptz, timestamptz, double precision, timestamptz) is
'Labels the texts about a symbol''s asset that became known in [from, to) by what followed: the value of a label (ml.labels) at the first minute at which the text was known. Classes become -1 and 1; values -1, 0 and 1, with 0 within dead_zone of zero. Copies are left out; a label counts as known from the end of its horizon on, and folds of a model trained on them are purged by it. Adds to the set what is not in it; returns how many. Errors: AP101, AP301 unknown symbol or label, AP674 as_of, AP686 the set''s name, AP687 the times or the dead zone, AP688 a label that says nothing of a market.';

create or replace function sentiment.create_model(
    model text, label_set text, language text default 'en', params jsonb default '{}',
    description text default null
)
returns text
language plpgsql volatile parallel unsafe set search_path = pg_catalog, pg_temp
as $$
declare
    v_label constant text := 'text_' || model;
begin
    if model is null or model !~ '^[a-z][a-z0-9_]{0,50}$' or model in ('vader', 'textblob', 'finance', 'blend') then
        raise exception 'not a name for a text model: %', coalesce(quote_literal(model), 'null')
        using errcode = 'AP677', hint = 'Small letters, digits and underscores, a letter first; not the name of a lexicon method.';
    end if;
    if language is null or language !~ '^[a-z]{2,3}$' then
        raise exception 'not a language: %', coalesce(quote_literal(language), 'null')
        using errcode = 'AP678', hint = 'Its ISO 639 code: en, ko, de.';
    end if;
    if label_set is null or not exists (
        select from sentiment.labelled_texts t
        where t.label_set = create_model.label_set and t.language = create_model.language
    ) then
        raise exception 'there are no texts in % of set %', language, coalesce(quote_literal(label_set), 'null')
        using errcode = 'AP679', hint = 'insert into sentiment.labelled_texts (label_set, text, language, label) …';
    end if;
    insert into feature.sets (name, version, features, definition, kind, grid, lookback, sha256, description)
    values (
        'text', 1, '{text}', 'text', 'text', interval '1 minute', interval '0',
        sha256('alphaplus text 1'), 'A text itself, which models of schema sentiment read.'
    )
    on conflict (name, version) do nothing;
    insert into ml.labels (label, task, kind, horizon, params, description)
    values (
        v_label, 'text', 'text', interval '1 second',
        jsonb_build_object('label_set', label_set, 'language', language),
        format('Sentiment of the texts of set %s in %s.', label_set, language)
    )
    on conflict (label) do nothing;
    insert into ml.models (model, label, feature_set, feature_version, algorithm, params, training, expires_after, description)
    values (
        create_model.model, v_label, 'text', 1, 'terms', create_model.params, '{"every": "365 days"}', interval '10 years',
        coalesce(create_model.description, format('Sentiment of texts in %s, by terms.', language))
    )
    on conflict on constraint models_pkey do nothing;
    if not exists (
        select from ml.models m join ml.labels l on l.label = m.label
        where m.model = create_model.model and m.algorithm = 'terms'
            and l.params = jsonb_build_object('label_set', create_model.label_set, 'language', create_model.language)
    ) then
        raise exception 'model % is there already and is another', quote_literal(model)
        using errcode = 'AP680', hint = 'Choose another name.';
    end if;
    return model;
end
$$;
comment on function sentiment.create_model(text, text, text, jsonb, text) is
'Makes a text model over the labelled texts of a set and language, to be trained with call sentiment.train(model), promoted with ml.promote and used as method of sentiment.analyze. params: C, min_texts, class_weight. Calling it again changes nothing. Errors: AP677 name, AP678 language, AP679 no such texts, AP680 the name is taken.';

create or replace procedure sentiment.train(
    model text, as_of timestamptz default null, inout job_id bigint default null
)
language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$
begin
    if not exists (select from ml.models m where m.model = train.model and m.algorithm = 'terms') then
        raise exception 'no text model %', coalesce(quote_literal(model), 'null')
        using errcode = 'AP681', hint = 'Make one: select sentiment.create_model(name, label_set, language).';
    end if;
    call ml.retrain(model, null, as_of => as_of, job_id => job_id);
end
$$;
comment on procedure sentiment.train(text, timestamptz, bigint) is
'Asks for training of a text model on the labels known at as_of (null: now); follow the job in ml.jobs. Errors: AP681 no such model.';

create or replace function sentiment._job_texts(
    job_id bigint, lease uuid
)
returns table (
    labelled_id bigint, text text, label double precision, ts bigint, language text, is_timed boolean,
    label_known bigint
)
language plpgsql volatile parallel unsafe security definer set search_path = pg_catalog, pg_temp
as $$
declare
    v_job ml.training_jobs := ml._held_job(job_id, lease);
begin
    return query
    select
        t.labelled_id, t.text, t.label, sentiment._micros(coalesce(t.ts, t.known_at)),
        t.language, t.ts is not null,
        case when t.ts is not null then sentiment._micros(t.label_known_at) end
    from ml.models m
    join ml.labels l on l.label = m.label
    join sentiment.labelled_texts t on t.label_set = l.params ->> 'label_set'
        and t.language = l.params ->> 'language'
    where m.model = v_job.model and t.known_at <= v_job.as_of and t.label_known_at <= v_job.as_of
    order by coalesce(t.ts, t.known_at), t.labelled_id;
end
$$;
comment on function sentiment._job_texts(bigint, uuid) is
'For the trainer: the labelled texts of the job that it holds, as known at the job''s as_of.';

-- What the tables of terms alone say, by a join; sentiment.analyze says the same, faster.
create or replace function sentiment._terms_of(text text)
returns table (word text, term text)
language plpython3u immutable parallel safe set search_path = pg_catalog, pg_temp
as $python$
    from alphaplus.server.sentiment import terms
    return terms.pairs(text)
$python$;
comment on function sentiment._terms_of(text) is 'The words of a text, and the terms of each.';

create or replace function sentiment.term_weights(text text, model text, as_of timestamptz default null)
returns table (word text, term text, weight double precision)
language sql stable parallel safe set search_path = pg_catalog, pg_temp
as $$
    select t.word, t.term, w.weight
    from sentiment._terms_of($1) t
    join sentiment.terms w on w.term = t.term
    where w.version_id = sentiment._champion($2, sentiment._micros($3))
$$;
comment on function sentiment.term_weights(text, text, timestamptz) is
'The terms of a text that the champion of a text model knows, word by word, with their weights (log odds of positive against negative). Their sum over the square root of the number of words, and the intercept, is the log odds of the text.';

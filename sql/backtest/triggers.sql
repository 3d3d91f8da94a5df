-- Trials are counted, so none goes.
create or replace function backtest._append_only() returns trigger
language plpgsql set search_path = pg_catalog, pg_temp
as $$
begin
    raise exception 'backtest.trials is append-only'
    using errcode = 'AP974', hint = 'What was tried counts in the judgement of the best of it.';
end
$$;
comment on function backtest._append_only() is 'Refuses changes of trials. Errors: AP974.';
create or replace trigger append_only before update or delete or truncate on backtest.trials
for each statement execute function backtest._append_only();

do $$
declare r text;
begin
  foreach r in array array['alphaplus_owner','alphaplus_loader','alphaplus_trainer','alphaplus_app','alphaplus_reader','alphaplus_operator'] loop
    if not exists (select from pg_catalog.pg_roles where rolname = r) then execute format('create role %I login', r); end if;
  end loop;
end $$;

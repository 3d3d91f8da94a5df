alter table ml.serving drop column trained_to;
drop trigger if exists void_base_rates on feature.pending;
drop function if exists ml._void_base_rates();
drop table ml.base_rates;
drop type ml.scored cascade;
drop type ml.served cascade;
drop type ml.answer cascade;

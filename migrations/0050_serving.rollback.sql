drop trigger keep_serving on ml.aliases;
drop function ml._keep_serving();
drop table ml.serving;

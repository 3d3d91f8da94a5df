drop trigger keep_sets on feature.sets;
drop function feature._keep_sets();
alter table feature.vectors
    add constraint vectors_set_id_fkey foreign key (set_id) references feature.sets (set_id);

drop table ops.locks;

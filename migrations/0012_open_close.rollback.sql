-- Nothing to undo: the other form has the same values, and 0010 drops the aggregate.
do $$ begin end $$;
